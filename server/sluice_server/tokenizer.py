"""Texts to token ids, in threads: the tokenizers library works without the GIL."""

from collections.abc import Iterator, Sequence
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
# Several times what any language needs.
_CHARACTERS_PER_TOKEN = 32
_PORTION_CHARACTERS = 1 << 18
# What fills the model only beyond it is cut here: spaces, or one word of a megabyte.
_MOST_CHARACTERS = 1 << 20


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
        self._width = _CHARACTERS_PER_TOKEN * max_tokens
        self._lowercase = lowercase
        self._cut = {side: _cutting(tokenizer, max_tokens, side) for side in (Truncation.END, Truncation.START)}

    def described(self) -> dict[str, object]:
        """All that makes the same tokenizer in another process: the arguments, the first of them as JSON's text."""
        return {"text": self._whole.to_str(), "max_tokens": self._max_tokens, "lowercase": self._lowercase}

    def estimate_tokens(self, texts: Sequence[str], prompt: str | None = None) -> int:
        """About how many tokens the texts are behind a prompt, without looking at them closely; at least one each."""
        ceiling, before = self._max_tokens, len((prompt or "").encode())
        return sum(
            min(ceiling, _SPECIAL_TOKENS + int((before + len(text.encode())) / _BYTES_PER_TOKEN) + 1) for text in texts
        )

    def encode(self, texts: Sequence[str], *, prompt: str | None, truncate: Truncation) -> EncodedTexts:
        """Tokenizes texts; those that are too long lose their end or their start.

        Raises:
            InputTooLongError: A text is too long and truncate is NONE.
        """
        parts = [_none(), *(self._encode_some(*some, prompt, truncate) for some in _portions(texts, self._width))]
        return EncodedTexts(
            np.concatenate([part.token_ids for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.truncated for part in parts]),
        )

    def _encode_some(self, first: int, texts: Sequence[str], prompt: str | None, truncate: Truncation) -> EncodedTexts:
        """A portion of the request's texts, the first of them at this place."""
        wholes = [text if prompt is None else prompt + text for text in texts]
        pieces = [_Piece(text, self._width, truncate) for text in wholes]
        encodings = self._encode_whole(pieces)
        too_long = [
            place
            for place, (piece, one) in enumerate(zip(pieces, encodings, strict=True))
            if len(one.ids) > self._max_tokens or not piece.is_whole
        ]
        if too_long and truncate is Truncation.NONE:
            place = too_long[0]
            size = (
                f"{len(encodings[place].ids)} tokens" if pieces[place].is_whole else f"{len(wholes[place])} characters"
            )
            raise InputTooLongError(f"input {first + place} has {size}; the model takes {self._max_tokens} tokens")
        if too_long:
            again = self._cut[truncate].encode_batch_fast([self._prepared(pieces[place].text) for place in too_long])
            for place, one in zip(too_long, again, strict=True):
                encodings[place] = one
        return _ragged(encodings, too_long)

    def _encode_whole(self, pieces: Sequence["_Piece"]) -> list[Encoding]:
        """Every piece; one that does not fill the model, and is not the whole text, grows first."""
        encodings = list(self._whole.encode_batch_fast([self._prepared(piece.text) for piece in pieces]))
        for place, piece in enumerate(pieces):
            while len(encodings[place].ids) <= self._max_tokens and piece.grow():
                encodings[place] = self._whole.encode_batch_fast([self._prepared(piece.text)])[0]
        return encodings

    def _prepared(self, text: str) -> str:
        return text.lower() if self._lowercase else text


class _Piece:
    """As much of a text as decides its tokens: its beginning, or its end where the beginning is to be cut.

    A tokenizer needs hundreds of bytes per character: the whole of a text of megabytes would fill the memory, for
    tokens that are cut off.
    """

    def __init__(self, text: str, width: int, truncate: Truncation) -> None:
        self._text = text
        self._width = width
        self._from_end = truncate is Truncation.START

    @property
    def is_whole(self) -> bool:
        return len(self._text) <= self._width

    @property
    def text(self) -> str:
        """Cut between two words, where there is a space in the outer half."""
        text, width = self._text, self._width
        if self.is_whole:
            return text
        if self._from_end:
            space = text.find(" ", len(text) - width, len(text) - width // 2)
            return text[max(space, len(text) - width) :]
        space = text.rfind(" ", width // 2, width)
        return text[: space if space > 0 else width]

    def grow(self) -> bool:
        """Makes it longer, if it is not the whole text, nor as long as a piece may be."""
        if self.is_whole or self._width >= _MOST_CHARACTERS:
            return False
        self._width *= 4
        return True


def _portions(texts: Sequence[str], width: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Runs of texts that are tokenized at once, each with the place of its first."""
    first = characters = 0
    for place, text in enumerate(texts):
        characters += min(len(text), width)
        if characters > _PORTION_CHARACTERS and place > first:
            yield first, texts[first:place]
            first, characters = place, min(len(text), width)
    yield first, texts[first:]


def _none() -> EncodedTexts:
    return EncodedTexts(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.bool_))


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
