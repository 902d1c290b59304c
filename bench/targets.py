"""What Sluice has to reach, and what a run saw. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench import outcome, roster
from bench.outcome import Result
from bench.rounds import Spread, spread

_AGAINST_CORAL = {"queries": 2.4, "products": 2.2, "bimodal": 2.0, "passages": 1.8}
_FLOAT32_AGAINST_CORAL = 1.3
_OF_THE_ENGINE = {"queries": 0.75, "products": 0.9, "passages": 0.9}
_PADDING = 1.02
_LIGHT_MS = 1.5
_FLAT = 0.1
_MEMORY = 1.3
# Anything closer than this is noise; Sluice itself takes a compiled model from 0.999 on, and int8 from 0.99: who rounds
# as much as that may be less faithful by as much again.
_LEAST_COSINE = {roster.COMPILED: 0.999, roster.COMPILED_FLOAT32: 0.99999, roster.COMPILED_INT8: 0.98}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach.

    Attributes:
        text: What is compared.
        wanted: The limit.
        most: Whether the limit is the most allowed, not the least.
        seen: None where it was not measured.
    """

    text: str
    wanted: float
    seen: Spread | None
    most: bool = False

    @property
    def reached(self) -> bool | None:
        """By the median; None where it was not measured."""
        if self.seen is None:
            return None
        return self.seen.median <= self.wanted if self.most else self.seen.median >= self.wanted


def targets(result: Result) -> list[Target]:
    """All of them, in the order of the tables."""
    return [*_coral(result), *_engines(result), *_host(result), *_growth(result)]


def rivals(result: Result, engine: str) -> list[str]:
    """Runtimes that may be compared with an engine: as faithful to float32 as its class of precision has to be."""
    least = _LEAST_COSINE[engine]
    found = ((name, outcome.about(result, name).get("lowest_cosine")) for name in roster.RUNTIMES)
    return [name for name, cosine in found if cosine is not None and cosine >= least]


def _coral(result: Result) -> Iterator[Target]:
    for mix, wanted in _AGAINST_CORAL.items():
        seen = outcome.compared(result, "ids-1", roster.NATIVE, roster.CORAL, outcome.tokens, mix=mix)
        yield Target(f"tokens/s, {mix}: Sluice ÷ {roster.CORAL}", wanted, seen)
    for mix in _AGAINST_CORAL:
        seen = outcome.compared(result, "ids-1", roster.NATIVE, roster.CORAL, outcome.p99, mix=mix)
        yield Target(f"P99, {mix}: Sluice ÷ {roster.CORAL}", 1.0, seen, most=True)
    for mix in _AGAINST_CORAL:
        seen = outcome.compared(result, "ids-1", roster.FLOAT32, roster.CORAL, outcome.tokens, mix=mix)
        yield Target(f"tokens/s, {mix}: Sluice float32 ÷ {roster.CORAL}", _FLOAT32_AGAINST_CORAL, seen)


def _engines(result: Result) -> Iterator[Target]:
    for engine in _LEAST_COSINE:
        for cell in outcome.cells(result, "offline"):
            there = outcome.turns(cell)
            found = [
                (name, outcome.compared(result, "offline", engine, name, outcome.tokens, mix=cell["mix"]))
                for name in rivals(result, engine)
            ]
            known = [(name, seen) for name, seen in found if seen is not None]
            if there and known:
                best, seen = min(known, key=lambda one: one[1].median)
                yield Target(f"offline, {cell['mix']}: {engine} ÷ {best}, the fastest as faithful", 1.0, seen)


def _host(result: Result) -> Iterator[Target]:
    for mix, wanted in _OF_THE_ENGINE.items():
        seen = outcome.compared(result, "ids-16", roster.NATIVE, roster.COMPILED, outcome.tokens, mix=mix)
        yield Target(f"16 texts per request, {mix}: Sluice ÷ its engine without the server", wanted, seen)
    for cell in outcome.cells(result, "ids-1"):
        seen = outcome.seen(result, "ids-1", roster.NATIVE, lambda turn: turn.padding, mix=cell["mix"])
        yield Target(f"positions computed for each token, {cell['mix']}: Sluice", _PADDING, seen, most=True)
    for server, engine in ((roster.NATIVE, roster.COMPILED), (roster.FLOAT32, roster.COMPILED_FLOAT32)):
        bare = result["bare_forward_ms"].get(engine)
        for cell in outcome.cells(result, "alone") if bare else []:
            there = [turn for turn in outcome.turns(cell) if turn.contestant == server]
            by_round = {turn.round: turn.p50_ms for turn in there}
            beyond = [
                latency - forward
                for number, forward in enumerate(bare)
                if (latency := by_round.get(number)) is not None
            ]
            yield Target(
                f"1 client, {cell['mix']}: P50 of {server} less the bare forward, ms",
                _LIGHT_MS,
                spread(beyond),
                most=True,
            )


def _growth(result: Result) -> Iterator[Target]:
    for group, key in (("clients", "clients"), ("texts", "texts")):
        for cell in outcome.cells(result, group)[1:]:
            unit = "clients" if key == "clients" else "texts per request"
            there = [name for name in (roster.NATIVE, roster.PATIENT) if name in outcome.names(result, cell)]
            for name in there:
                seen = outcome.grown(result, group, name, outcome.tokens, **{key: cell[key]})
                yield Target(f"tokens/s at {cell[key]} {unit} ÷ at the first step: {name}", 1 - _FLAT, seen)
    alone = outcome.cells(result, "alone")
    for cell in outcome.cells(result, "clients")[-1:] if alone else []:
        first = outcome.seen(result, "alone", roster.NATIVE, lambda turn: turn.rss_mib, mix=alone[0]["mix"])
        last = outcome.seen(result, "clients", roster.NATIVE, lambda turn: turn.rss_mib, clients=cell["clients"])
        if first is not None and last is not None:
            grown = Spread(last.median / first.median, last.least / first.most, last.most / first.least)
            yield Target(f"memory at {cell['clients']} clients ÷ at one", _MEMORY, grown, most=True)
