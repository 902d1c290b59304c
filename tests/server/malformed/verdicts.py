"""What a request deserves, and whether the answer is that: written from the contract, not from the server."""

import re
from dataclasses import dataclass

VOCABULARY = 30_522
POSITIONS = 512
DIMENSION = 384
# As the server under test is told; small, so that too much is cheap to send.
MAX_INPUTS = 64
MAX_TOKENS = 4096
MAX_MESSAGE_BYTES = 4 << 20

# A refusal says what is allowed …
_ALLOWED = re.compile(r"expected|the model takes|[Ss]hould be|not JSON|required|exceeded")
# … and nothing of the program behind it.
_INSIDES = re.compile(
    r"Traceback|<class|File \"|\b[A-Za-z.]+(?:Error|Exception|Warning|Group)\b|object at 0x|numpy|torch"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answer must be.

    Attributes:
        codes: Any of these; OK where the request is fine after all.
        words: A refusal holds one of them: the faulty fields' names.
        shape: Of the embeddings, where it is fine.
    """

    codes: frozenset[str]
    words: frozenset[str] = frozenset()
    shape: tuple[int, int] | None = None

    @property
    def is_bad(self) -> bool:
        return "OK" not in self.codes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the answer was; no code where the server closed the connection without a word."""

    code: str | None
    message: str = ""
    shape: tuple[int, int] | None = None
    unit_length: bool = False


def fine(rows: int, dimensions: int = DIMENSION) -> Verdict:
    return Verdict(frozenset({"OK"}), shape=(rows, dimensions))


def refused(*words: str, code: str = "INVALID_ARGUMENT") -> Verdict:
    return Verdict(frozenset({code}), frozenset(words))


def check(verdict: Verdict, outcome: Outcome, *, of: object) -> None:
    """Fails unless the answer is what the request deserves, in a sentence for its caller."""
    seen = f"{outcome} to {str(of)[:500]}"
    assert outcome.code in verdict.codes, seen
    if outcome.code == "OK":
        assert outcome.shape == verdict.shape, seen
        assert outcome.unit_length, seen
        return
    assert any(word in outcome.message for word in verdict.words), f"none of {set(verdict.words)}: {seen}"
    assert _ALLOWED.search(outcome.message), seen
    assert not _INSIDES.search(outcome.message), seen
    assert len(outcome.message) < 1000, seen
