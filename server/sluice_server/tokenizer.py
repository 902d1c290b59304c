"""Texts to token ids, in threads: the tokenizers library works without the GIL."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from sluice_server.errors import InputTooLongError

# Of English WordPiece, with a margin: an estimate above the truth is settled a moment later.
_BYTES_PER_TOKEN = 3.5
_SPECIAL_TOKENS = 2


class Truncation(Enum):
    """What happens to a text that is too long."""

    NONE = "none"
    END = "right"
    START = "left"


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Ragged ids.

    Attributes:
        token_ids: int32 (total,), special tokens included.
        lengths: int32 (n,).
        truncated: bool (n,).
    """

    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    truncated: NDArray[np.bool_]


class TextTokenizer:
    """The model's tokenizer; safe to call from several threads, as nothing in it changes after construction.

    Args:
        tokenizer: Of the model.
        max_tokens: Where texts are truncated, special tokens included.
        lowercase: The model's sentence_bert_config.json asks for it.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, lowercase: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._whole = tokenizer
        self._max_tokens = max_tokens
        self._lowercase = lowercase
        self._cut = {side: _cutting(tokenizer, max_tokens, side) for side in (Truncation.END, Truncation.START)}

    def estimate_tokens(self, texts: Sequence[str]) -> int:
        """About how many tokens the texts are, without looking at them closely; at least one each."""
        ceiling = self._max_tokens
        return sum(min(ceiling, _SPECIAL_TOKENS + int(len(text.encode()) / _BYTES_PER_TOKEN) + 1) for text in texts)

    def encode(self, texts: Sequence[str], *, prompt: str | None, truncate: Truncation) -> EncodedTexts:
        """Tokenizes texts; those that are too long lose their end or their start.

        Raises:
            InputTooLongError: A text is too long and truncate is NONE.
        """
        whole = [self._prepared(text, prompt) for text in texts]
        encodings = list(self._whole.encode_batch_fast(whole))
        too_long = [place for place, one in enumerate(encodings) if len(one.ids) > self._max_tokens]
        if too_long and truncate is Truncation.NONE:
            place = too_long[0]
            raise InputTooLongError(
                f"input {place} has {len(encodings[place].ids)} tokens; the model takes {self._max_tokens}"
            )
        if too_long:
            again = self._cut[truncate].encode_batch_fast([whole[place] for place in too_long])
            for place, one in zip(too_long, again, strict=True):
                encodings[place] = one
        return _ragged(encodings, too_long)

    def _prepared(self, text: str, prompt: str | None) -> str:
        whole = text if prompt is None else prompt + text
        return whole.lower() if self._lowercase else whole


def _cutting(tokenizer: Tokenizer, max_tokens: int, side: Truncation) -> Tokenizer:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(max_tokens, direction=side.value)
    return cutting


def _ragged(encodings: Sequence[Encoding], too_long: Sequence[int]) -> EncodedTexts:
    rows = [one.ids for one in encodings]
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    truncated = np.zeros(len(rows), dtype=np.bool_)
    truncated[list(too_long)] = True
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
    return EncodedTexts(ids, lengths, truncated)
