"""Texts to ids: equal to the model's own tokenizer, cut where asked, safe in threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice_server.errors import InputTooLongError
from sluice_server.tokenizer import TextTokenizer, Truncation
from tokenizers import Tokenizer

TEXTS = ["short", "", "a rather longer text, with Commas and ÜMLAUTS", "word " * 400, "東京 🙂"]


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_file(str(model_folder / "tokenizer.json")), max_tokens=256)


def rows(encoded: Any) -> list[list[int]]:
    return [row.tolist() for row in np.split(encoded.token_ids, np.cumsum(encoded.lengths)[:-1])]


def test_ids_equal_those_of_sentence_transformers(tokenizer: TextTokenizer, reference: Any) -> None:
    encoded = tokenizer.encode(TEXTS, prompt=None, truncate=Truncation.END)
    expected = reference.preprocess(TEXTS)
    real = expected["attention_mask"].bool()
    assert rows(encoded) == [ids[mask].tolist() for ids, mask in zip(expected["input_ids"], real, strict=True)]
    assert (encoded.token_ids.dtype, encoded.lengths.dtype) == (np.int32, np.int32)


def test_a_prompt_goes_before_the_text(tokenizer: TextTokenizer) -> None:
    prompted = tokenizer.encode(["what is rain"], prompt="query: ", truncate=Truncation.END)
    whole = tokenizer.encode(["query: what is rain"], prompt=None, truncate=Truncation.END)
    assert rows(prompted) == rows(whole)


@pytest.mark.parametrize(
    ("truncate", "kept"), [(Truncation.END, slice(None, 254)), (Truncation.START, slice(-254, None))]
)
def test_a_long_text_loses_one_side_and_keeps_its_special_tokens(
    tokenizer: TextTokenizer, model_folder: Path, truncate: Truncation, kept: slice
) -> None:
    text = " ".join(f"{number}" for number in range(500))
    encoded = tokenizer.encode(["first", text, "last"], prompt=None, truncate=truncate)
    plain = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    whole = plain.encode(text).ids
    assert rows(encoded)[1] == [whole[0], *whole[1:-1][kept], whole[-1]]
    assert encoded.truncated.tolist() == [False, True, False]


def test_a_long_text_is_refused_when_it_may_not_be_cut(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputTooLongError, match=r"input 3 has 402 tokens; the model takes 256 tokens"):
        tokenizer.encode(TEXTS, prompt=None, truncate=Truncation.NONE)


@pytest.mark.parametrize("truncate", [Truncation.END, Truncation.START])
@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"{number}" for number in range(100_000)),
        "x" + " " * 40_000 + "a few words" + " " * 40_000 + "y",
        "w" * 300_000 + " and some more words",
        "a few words and " + "w" * 300_000,
        "(" * 50_000,
        "東京" * 20_000,
    ],
    ids=["numbers", "spaces", "a long word first", "a long word last", "marks", "no spaces"],
)
def test_only_what_is_kept_of_a_very_long_text_decides_its_tokens(
    tokenizer: TextTokenizer, model_folder: Path, text: str, truncate: Truncation
) -> None:
    plain = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(256, direction=truncate.value)
    encoded = tokenizer.encode([text, "short"], prompt=None, truncate=truncate)
    assert rows(encoded) == [plain.encode(text).ids, plain.encode("short").ids]


def test_many_texts_are_tokenized_in_portions_and_keep_their_places(tokenizer: TextTokenizer) -> None:
    texts = [f"{number} " * (number % 7 * 2000 + 1) for number in range(100)]
    together = rows(tokenizer.encode(texts, prompt=None, truncate=Truncation.END))
    alone = [rows(tokenizer.encode([text], prompt=None, truncate=Truncation.END))[0] for text in texts]
    assert together == alone
    with pytest.raises(InputTooLongError, match=r"input 99 has 300 tokens"):
        tokenizer.encode(["a " * 254] * 99 + ["a " * 298], prompt=None, truncate=Truncation.NONE)
    with pytest.raises(InputTooLongError, match=r"input 1 has 60000 characters; the model takes 256 tokens"):
        tokenizer.encode(["a", "a " * 30_000], prompt=None, truncate=Truncation.NONE)


def test_a_text_of_exactly_the_limit_is_whole(tokenizer: TextTokenizer) -> None:
    encoded = tokenizer.encode(["word " * 254], prompt=None, truncate=Truncation.NONE)
    assert encoded.lengths.tolist() == [256]
    assert not encoded.truncated.any()


def test_texts_are_lowered_where_the_model_says_so(model_folder: Path) -> None:
    raw = Tokenizer.from_str(
        (model_folder / "tokenizer.json")
        .read_text()
        .replace('"lowercase":true', '"lowercase":false')
        .replace('"lowercase": true', '"lowercase": false')
    )
    lowering = TextTokenizer(raw, max_tokens=256, lowercase=True)
    plain = TextTokenizer(raw, max_tokens=256)

    def ids(tokenizer: TextTokenizer, text: str) -> list[list[int]]:
        return rows(tokenizer.encode([text], prompt=None, truncate=Truncation.END))

    assert ids(lowering, "LOUD") == ids(plain, "loud") != ids(plain, "LOUD")


def test_threads_do_not_disturb_each_other(tokenizer: TextTokenizer) -> None:
    """Modes with different truncation at once: shared state would mix them up."""
    text = " ".join(f"{number}" for number in range(500))
    modes = [Truncation.END, Truncation.START] * 50
    alone = {mode: rows(tokenizer.encode([text], prompt=None, truncate=mode)) for mode in set(modes)}
    with ThreadPoolExecutor(8) as threads:
        results = threads.map(lambda mode: rows(tokenizer.encode([text], prompt=None, truncate=mode)), modes)
        assert list(results) == [alone[mode] for mode in modes]


def test_the_estimate_is_near_and_never_above_the_limit(tokenizer: TextTokenizer) -> None:
    english = ["The central bank raised its key interest rate by a quarter of a point on Thursday."] * 10
    true = int(tokenizer.encode(english, prompt=None, truncate=Truncation.END).lengths.sum())
    assert true <= tokenizer.estimate_tokens(english) <= 2 * true
    assert tokenizer.estimate_tokens(["x" * 100_000]) == 256
    assert tokenizer.estimate_tokens([""]) >= 1
    assert tokenizer.estimate_tokens([""], "x" * 35) >= 11
