"""Inputs of any number, one after the other, become requests of a bounded size. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from sluice.v1 import embeddings_pb2 as pb

from sluice_client.requests import EmbedOptions, Input, check_input, encode

# As the server estimates: of English WordPiece, with a margin, and two special tokens.
_BYTES_PER_TOKEN = 3.5
_SPECIAL_TOKENS = 3
# A text has at most a token a byte: four estimates always hold what the text turns out to be.
_WORST_CASE = 4


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What the service told of itself.

    Attributes:
        max_inputs: In one request.
        max_tokens: In one request, all inputs together.
        max_input_tokens: Where a text is truncated.
        dimension: Of the embeddings.
        has_default_prompt: A prompt goes before texts for which none is named.
    """

    max_inputs: int
    max_tokens: int
    max_input_tokens: int
    dimension: int
    has_default_prompt: bool = False


@dataclass(frozen=True, slots=True)
class PartSize:
    """What one request of this client holds at most; its own wishes within the service's limits.

    Attributes:
        max_inputs: Texts or rows.
        max_text_tokens: Estimated tokens of texts.
        max_id_tokens: Token ids.
        max_input_tokens: No single text is estimated longer: the service truncates it there.
        has_default_prompt: See ServiceLimits.
    """

    max_inputs: int
    max_text_tokens: int
    max_id_tokens: int
    max_input_tokens: int
    has_default_prompt: bool = False

    @classmethod
    def within(cls, limits: ServiceLimits, *, max_inputs: int, max_tokens: int) -> "PartSize":
        """The smaller of what the client wants and what the service takes."""
        return cls(
            max_inputs=min(max_inputs, limits.max_inputs),
            max_text_tokens=min(max_tokens, limits.max_tokens // _WORST_CASE),
            max_id_tokens=min(max_tokens, limits.max_tokens),
            max_input_tokens=limits.max_input_tokens,
            has_default_prompt=limits.has_default_prompt,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One request and the place of its inputs among all.

    Attributes:
        index: 0, 1, 2, …
        first: Position of its first input.
        inputs: In order; the rows of ids as int32.
        request: What travels.
    """

    index: int
    first: int
    inputs: Sequence[Input]
    request: Message

    @property
    def positions(self) -> range:
        """Of its inputs among all."""
        return range(self.first, self.first + len(self.inputs))


class Splitter:
    """Takes one input after the other and gives a part whenever one is full.

    Inputs larger than a part travel alone: whether they are too long is the server's decision.

    Args:
        options: Of every part.
        size: Of every part.
    """

    def __init__(self, options: EmbedOptions, size: PartSize) -> None:
        self._options = options
        self._size = size
        self._held: list[Input] = []
        self._held_tokens = 0
        self._index = self._first = 0
        self._texts: bool | None = None

    def add(self, one: object) -> Part | None:
        """Takes the next input; gives the part before it where it has no more room there, or the one that it fills.

        Raises:
            TypeError: An input of another kind than the others, or of no kind that can be embedded.
            InvalidRequestError: An input that can never be embedded.
        """
        position = self._first + len(self._held)
        checked = check_input(one, position)
        is_text = isinstance(checked, str)
        if self._texts is None:
            self._texts = is_text
        elif self._texts is not is_text:
            kinds = ("token ids", "a text") if is_text else ("a text", "token ids")
            raise TypeError(f"input {position} is {kinds[1]}, the first was {kinds[0]}; expected one kind")
        tokens, most = self._weigh(checked)
        has_room = len(self._held) < self._size.max_inputs and self._held_tokens + tokens <= most
        full = None if has_room else self.finish()
        self._held.append(checked)
        self._held_tokens += tokens
        if full is None and len(self._held) >= self._size.max_inputs:
            full = self.finish()
        return full

    def finish(self) -> Part | None:
        """What is held, as a part; None where nothing is."""
        if not self._held:
            return None
        part = Part(self._index, self._first, tuple(self._held), encode(self._held, self._options))
        self._index += 1
        self._first += len(self._held)
        self._held, self._held_tokens = [], 0
        return part

    def _weigh(self, one: Input) -> tuple[int, int]:
        """Its tokens, and the most that a part of its kind holds."""
        if not isinstance(one, str):
            return one.size, self._size.max_id_tokens
        named = self._options.prompt_name
        if named or (named is None and self._size.has_default_prompt):
            # How long the prompt is only the server knows.
            return self._size.max_input_tokens, _WORST_CASE * self._size.max_text_tokens
        estimate = _SPECIAL_TOKENS + int(len(one.encode()) / _BYTES_PER_TOKEN)
        return min(self._size.max_input_tokens, estimate), self._size.max_text_tokens


def split(inputs: Iterable[object], options: EmbedOptions, size: PartSize) -> Iterator[Part]:
    """Parts that hold all inputs in order, read no further ahead than the part that is asked for.

    Raises:
        TypeError: See Splitter.add.
        InvalidRequestError: See Splitter.add.
    """
    splitter = Splitter(options, size)
    for one in inputs:
        part = splitter.add(one)
        if part is not None:
            yield part
    last = splitter.finish()
    if last is not None:
        yield last


def limits_of(info: pb.GetInfoResponse) -> ServiceLimits:
    """What a reply of GetInfo allows.

    Raises:
        ValueError: The service does not know its own limits, as its model is not loaded yet.
    """
    limits = ServiceLimits(
        info.max_inputs_per_request,
        info.max_tokens_per_request,
        info.max_input_tokens,
        info.embedding_dimension,
        info.HasField("default_prompt_name"),
    )
    if not (limits.max_inputs and limits.max_tokens and limits.max_input_tokens and limits.dimension):
        raise ValueError("the service does not know its limits yet: its model is not loaded")
    return limits
