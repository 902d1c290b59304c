"""What a results file says: its cells, their turns, figures and ratios. Pure."""

from collections.abc import Mapping
from typing import Any

from bench.rounds import Figure, Spread, Turn, figure, ratio

Result = Mapping[str, Any]
Cell = Mapping[str, Any]


def cells(result: Result, group: str, **wanted: Any) -> list[Cell]:
    """Those of a group that have all the wanted values, as measured."""
    return [
        cell
        for cell in result["cells"]
        if cell["group"] == group and all(cell[key] == value for key, value in wanted.items())
    ]


def turns(cell: Cell) -> list[Turn]:
    """Of a cell."""
    return [Turn(**turn) for turn in cell["turns"]]


def names(result: Result, cell: Cell) -> list[str]:
    """Who took part, in the order of the line-up."""
    there = {turn["contestant"] for turn in cell["turns"]}
    return [one["name"] for one in result["contestants"] if one["name"] in there]


def seen(result: Result, group: str, name: str, what: Figure, **wanted: Any) -> Spread | None:
    """A figure of one contestant in one cell; None where it was not measured."""
    found = cells(result, group, **wanted)
    return figure(turns(found[0]), name, what) if found else None


def compared(result: Result, group: str, one: str, other: str, what: Figure, **wanted: Any) -> Spread | None:
    """How often the other's figure goes into one's, within rounds; None where that was not measured."""
    found = cells(result, group, **wanted)
    return ratio(turns(found[0]), one, other, what) if found else None


def grown(result: Result, group: str, name: str, what: Figure, **wanted: Any) -> Spread | None:
    """A figure of one contestant in a cell against the first cell of the group, within rounds."""
    found, first = cells(result, group, **wanted), cells(result, group)[:1]
    if not found or not first:
        return None
    base = [turn for turn in turns(first[0]) if turn.contestant == name]
    there = [turn for turn in turns(found[0]) if turn.contestant == name]
    both = [_renamed(turn, "there") for turn in there] + [_renamed(turn, "first") for turn in base]
    return ratio(both, "there", "first", what)


def about(result: Result, name: str) -> Mapping[str, Any]:
    """What is said of a contestant; nothing where it was absent."""
    return next((one for one in result["contestants"] if one["name"] == name), {})


def tokens(turn: Turn) -> float:
    """Useful tokens per second."""
    return turn.tokens_per_second


def p99(turn: Turn) -> float | None:
    """In ms."""
    return turn.p99_ms


def _renamed(turn: Turn, name: str) -> Turn:
    from dataclasses import replace  # noqa: PLC0415

    return replace(turn, contestant=name)
