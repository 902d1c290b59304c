"""The same work for everybody, as token ids and as texts: random whole words, so that both have the same length."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu_inference import inference_pb2 as coral_pb
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as sluice_pb

from bench.callers import Request
from bench.load import draw_lengths

CORAL_BUCKETS = (16, 32, 64, 128, 256, 512)
"""coral-gpu-inference's fixed ones; its caller pads to one of them."""
_WORD = re.compile(r"[a-z]{3,}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words that are one token each.

    Attributes:
        words: By position.
        ids: int32, of the words.
        first: Put before every text by the tokenizer ([CLS]).
        last: Put behind every text ([SEP]).
    """

    words: tuple[str, ...]
    ids: NDArray[np.int32]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The inputs of one request.

    Attributes:
        ids: int32 (sum of lengths,), special tokens included.
        lengths: int32 (n,).
        texts: What the ids were made of.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    texts: tuple[str, ...]

    def split(self) -> list[NDArray[np.int32]]:
        """One array of ids for each text."""
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])


def read_vocabulary(model: str) -> Vocabulary:
    """The whole words of a WordPiece model.

    Raises:
        SystemExit: The folder holds no such tokenizer.
    """
    path = Path(model) / "tokenizer.json"
    described: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    vocabulary = described.get("model", {}).get("vocab", {})
    if described.get("model", {}).get("type") != "WordPiece":
        raise SystemExit(f"{path}: no WordPiece tokenizer; expected a model of BERT's family")
    words = tuple(sorted(word for word in vocabulary if _WORD.fullmatch(word)))
    ids = np.array([vocabulary[word] for word in words], dtype="<i4")
    return Vocabulary(words, ids, vocabulary["[CLS]"], vocabulary["[SEP]"])


def draw(vocabulary: Vocabulary, mix: str, count: int, *, texts: int = 1, seed: int = 7) -> list[Rows]:
    """Inputs of so many requests, with lengths of the mix."""
    dice = np.random.default_rng(seed)
    return [_rows(vocabulary, draw_lengths(mix, texts, dice), dice) for _ in range(count)]


def as_ids(work: Sequence[Rows]) -> list[Request]:
    """For Sluice: ragged rows of ids."""
    return [Request((_ids_message(rows),), int(rows.ids.size)) for rows in work]


def as_texts(work: Sequence[Rows]) -> list[Request]:
    """For Sluice: texts."""
    return [Request((_texts_message(rows),), int(rows.ids.size)) for rows in work]


def as_padded_ids(work: Sequence[Rows]) -> list[Request]:
    """For coral-gpu-inference: rows of one bucket in each message, padded to its length, as its caller has to."""
    made = []
    for rows in work:
        messages, padded = [], 0
        buckets = np.array(CORAL_BUCKETS)[np.searchsorted(CORAL_BUCKETS, rows.lengths)]
        split = rows.split()
        for bucket in np.unique(buckets):
            chosen = [split[place] for place in np.flatnonzero(buckets == bucket)]
            messages.append(_coral_message(chosen, int(bucket)))
            padded += int(bucket) * len(chosen) - sum(map(len, chosen))
        made.append(Request(tuple(messages), int(rows.ids.size), padded))
    return made


def as_openai(work: Sequence[Rows]) -> list[Request]:
    """For servers with OpenAI's API: texts in JSON; base64 is the cheapest reply that it has."""
    made = []
    for rows in work:
        body = {"model": "model", "input": list(rows.texts), "encoding_format": "base64"}
        made.append(Request((json.dumps(body).encode(),), int(rows.ids.size)))
    return made


def _rows(vocabulary: Vocabulary, lengths: NDArray[np.int32], dice: np.random.Generator) -> Rows:
    ids, texts = [], []
    for length in lengths:
        chosen = dice.integers(0, len(vocabulary.words), int(length) - 2)
        ids.append(np.concatenate(([vocabulary.first], vocabulary.ids[chosen], [vocabulary.last])))
        texts.append(" ".join(vocabulary.words[place] for place in chosen))
    return Rows(np.concatenate(ids).astype("<i4"), lengths, tuple(texts))


def _ids_message(rows: Rows) -> bytes:
    ids = sluice_pb.TokenIds(ids=rows.ids.tobytes(), lengths=rows.lengths.tobytes())
    return sluice_pb.EmbedRequest(token_ids=ids).SerializeToString()


def _texts_message(rows: Rows) -> bytes:
    return sluice_pb.EmbedRequest(texts=sluice_pb.Texts(values=rows.texts)).SerializeToString()


def _coral_message(rows: Sequence[NDArray[np.int32]], bucket: int) -> bytes:
    ids = np.zeros((len(rows), bucket), dtype="<i4")
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return coral_pb.InferRequest(
        request_id="bench", input_ids_bytes=ids.tobytes(), attention_mask_bytes=mask.tobytes(), num_items=len(rows),
        seq_len=bucket, bucket_max_len=bucket, max_wait_ms=60_000,
    ).SerializeToString()  # fmt: skip
