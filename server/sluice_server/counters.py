"""Totals since boot; the event loop alone changes them."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """What became of every token that was asked for.

    Attributes:
        offered_tokens: Asked for the first time: what clients want, however often they have to ask.
        repeated_tokens: Asked for again, by callers that say so.
        admitted_tokens: Taken in.
        rejected_tokens: Refused, by reason.
        rejected_requests: Refused, by reason.
        expired_tokens: Admitted, then dropped because the caller left or the deadline passed.
        computed_tokens: Of rows that were computed.
        padded_tokens: Computed as padding only.
    """

    offered_tokens: int = 0
    repeated_tokens: int = 0
    admitted_tokens: int = 0
    rejected_tokens: dict[str, int] = field(default_factory=dict)
    rejected_requests: dict[str, int] = field(default_factory=dict)
    expired_tokens: int = 0
    computed_tokens: int = 0
    padded_tokens: int = 0

    def ask(self, tokens: int, *, is_repeated: bool) -> None:
        """Counts what is asked for; tokens below zero take back what was estimated too high."""
        if is_repeated:
            self.repeated_tokens += tokens
        else:
            self.offered_tokens += tokens

    def reject(self, reason: str, tokens: int, requests: int = 1) -> None:
        """Counts refusals."""
        self.rejected_tokens[reason] = self.rejected_tokens.get(reason, 0) + tokens
        self.rejected_requests[reason] = self.rejected_requests.get(reason, 0) + requests

    @property
    def rejected_tokens_total(self) -> int:
        """For all reasons."""
        return sum(self.rejected_tokens.values())

    @property
    def padding_waste(self) -> float | None:
        """Share of what the device computed that was padding; None before it computed anything."""
        computed = self.computed_tokens + self.padded_tokens
        return self.padded_tokens / computed if computed else None
