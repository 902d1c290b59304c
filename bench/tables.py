"""The tables of the page of results, and how figures are written in them. Pure."""

from collections.abc import Sequence

from bench import outcome, roster, targets
from bench.outcome import Cell, Result
from bench.rounds import Figure, Spread, Turn

_COLUMNS = (
    ("tokens/s", lambda turn: turn.tokens_per_second, 0),
    ("requests/s", lambda turn: turn.requests_per_second, 0),
    ("P50 ms", lambda turn: turn.latencies_ms and turn.latencies_ms[0], 1),
    ("P95 ms", lambda turn: turn.latencies_ms and turn.latencies_ms[1], 1),
    ("P99 ms", lambda turn: turn.latencies_ms and turn.latencies_ms[2], 1),
    ("CPU s per 1k tokens", lambda turn: turn.cpu_seconds_per_1k_tokens, 3),
    ("RSS MiB", lambda turn: turn.rss_mib, 0),
    ("positions per token", lambda turn: turn.padding, 2),
)  # fmt: skip


def target_table(found: Sequence[targets.Target]) -> str:
    """One line for each target; what was missed is bold."""
    lines = ["| | wanted | seen: median (range over rounds) | |", "|---|---|---|---|"]
    for one in found:
        words = {True: "reached", False: "**missed**", None: "not measured"}[one.reached]
        sign = "≤" if one.most else "≥"
        lines.append(f"| {one.text} | {sign} {one.wanted:g} | {shown(one.seen, 2)} | {words} |")
    return "\n".join(lines)


def contestant_table(result: Result) -> str:
    """Who they are, and whether they compute the model."""
    lines = ["| | what | lowest cosine to sentence-transformers | cores taken when idle |", "|---|---|---|---|"]
    for one in result["contestants"]:
        cosine = "-" if one["lowest_cosine"] is None else f"{one['lowest_cosine']:.5f}"
        if one["pooled_without_special"] is not None:
            cosine += f" ({one['pooled_without_special']:.5f} to its own pooling, without [CLS] and [SEP])"
        idle = "-" if one["idle_cpu"] is None else f"{one['idle_cpu']:.3f}"
        lines.append(f"| {one['name']} | {one['what']} | {cosine} | {idle} |")
    return "\n".join(lines)


def cell_table(result: Result, cell: Cell) -> str:
    """One line for each contestant: medians over rounds, and ratios within rounds."""
    engines = (roster.COMPILED, roster.COMPILED_FLOAT32, roster.COMPILED_INT8)
    mine = engines if cell["group"] == "offline" else (roster.NATIVE, roster.FLOAT32)
    there, who = outcome.turns(cell), outcome.names(result, cell)
    columns = [column for column in _COLUMNS if any(column[1](turn) is not None for turn in there)]
    head = [cell["mix"], *(f"{one} ÷ it" for one in mine if one in who), *(name for name, _, _ in columns), "not OK"]
    lines = [_row(head), "|---" * len(head) + "|"]
    for name in who:
        ratios = [_ratio(result, cell, one, name) for one in mine if one in who]
        figures = [shown(outcome.seen(result, cell["group"], name, what, mix=cell["mix"]), digits, spread=False)
                   for _, what, digits in columns]  # fmt: skip
        lines.append(_row([name, *ratios, *figures, failures(there, name)]))
    return "\n".join(lines)


def open_loop_table(result: Result) -> str:
    """One line for each contestant at each load: medians over rounds, with their ranges."""
    head = ["mix", "requests/s offered", "of the first peer's capacity", "", "in time/s", "P50 ms", "P99 ms", "not OK"]
    lines = [_row(head), "|---" * len(head) + "|"]
    for cell in outcome.cells(result, "open"):
        there = outcome.turns(cell)
        same = {"mix": cell["mix"], "load": cell["load"]}
        for name in outcome.names(result, cell):
            figures: list[tuple[Figure, int]] = [
                (lambda turn: turn.goodput, 0), (lambda turn: turn.p50_ms, 1), (lambda turn: turn.p99_ms, 1)
            ]  # fmt: skip
            values = [shown(outcome.seen(result, "open", name, what, **same), digits) for what, digits in figures]
            start = [cell["mix"], f"{cell['per_second']:.0f}", f"{cell['load']:g}", name]
            lines.append(_row([*start, *values, failures(there, name)]))
    return "\n".join(lines)


def growth_table(result: Result, group: str, title: str) -> str:
    """One line for each step of a group that was measured, against its first step.

    Args:
        result: Of the run.
        group: Of cells that differ in what the group is named after.
        title: Of the column of steps.
    """
    found = outcome.cells(result, group)
    who = outcome.names(result, found[0])
    head = [
        title,
        *(f"{name}: {unit}" for name in who for unit in ("tokens/s", "÷ first step", "RSS MiB", "not OK")),
    ]
    lines = [_row(head), "|---" * len(head) + "|"]
    for cell in found:
        same = {group: cell[group]}
        values = [str(cell[group])]
        for name in who:
            values += [
                shown(outcome.seen(result, group, name, outcome.tokens, **same), 0, spread=False),
                shown(outcome.grown(result, group, name, outcome.tokens, **same), 2),
                shown(outcome.seen(result, group, name, _rss, **same), 0, spread=False),
                failures(outcome.turns(cell), name),
            ]
        lines.append(_row(values))
    return "\n".join(lines)


def failures(there: Sequence[Turn], name: str) -> str:
    """Requests that did not end well, by their code."""
    codes: dict[str, int] = {}
    for turn in there:
        for code, count in turn.codes.items() if turn.contestant == name else ():
            codes[code] = codes.get(code, 0) + count
    total = sum(codes.values())
    bad = {code: count for code, count in sorted(codes.items()) if code != "OK"}
    return ", ".join(f"{code} {count / total:.1%}" for code, count in bad.items()) or "0"


def shown(value: Spread | None, digits: int, *, spread: bool = True) -> str:
    """`1.50 (1.40 to 1.60)`; a dash where nothing was measured."""
    if value is None:
        return "-"
    text = f"{value.median:,.{digits}f}"
    return f"{text} ({value.least:,.{digits}f} to {value.most:,.{digits}f})" if spread else text


def _ratio(result: Result, cell: Cell, one: str, other: str) -> str:
    """Bold where the other is faster."""
    if one == other:
        return "1"
    seen = outcome.compared(result, cell["group"], one, other, outcome.tokens, mix=cell["mix"])
    text = shown(seen, 2)
    return f"**{text}**" if seen is not None and seen.median < 1 else text


def _rss(turn: Turn) -> float | None:
    return turn.rss_mib


def _row(values: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"
