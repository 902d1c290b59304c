"""One run from its start to its result: everybody is started, checked, and measured in alternating turns."""

import contextlib
import dataclasses
import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from bench import inspection, lineup, machine, plan, roster, rounds
from bench.contestants import Cell
from bench.engine_process import BareEngine, EngineError
from bench.lineup import Lineup
from bench.place import Place
from bench.plan import Options, Stage
from bench.rounds import Turn
from bench.workload import Rows, Vocabulary, draw, read_vocabulary

Result = dict[str, Any]
_NAIVE_ROWS = 32


class Run:
    """State of one run.

    Args:
        options: What is measured.
        place: Where things are.
        peer_lock: Says which versions of the peers there are.
    """

    def __init__(self, options: Options, place: Place, peer_lock: Path) -> None:
        self._options = options
        self._peer_lock = peer_lock
        self._place = place
        self._vocabulary: Vocabulary = read_vocabulary(str(place.model))
        self._work: dict[tuple[str, int], list[Rows]] = {}
        self._cells: list[Result] = []
        self._light: dict[str, list[float]] = {}

    async def run(self, save: Callable[[Result], object]) -> None:
        """Measures all; what is known is saved after each stage, so that a run that is broken off is not lost."""
        began, ticks = dt.datetime.now(dt.UTC), machine.processor_time()
        with contextlib.ExitStack() as stack:
            todo = plan.stages(self._options)
            bar = stack.enter_context(tqdm(total=_turns(todo), unit="turn", dynamic_ncols=True, smoothing=0.1))
            found = await lineup.assemble(stack, self._place, self._options.wants, bar.set_description)
            await inspection.inspect(found, self._place, bar.set_description)
            for mix in dict.fromkeys(cell.mix for stage in todo for cell in stage.cells):
                bar.set_description(f"finding the best batches of {mix}")
                await inspection.load_texts(found, self._place, mix, self._texts(mix, 1))
            for stage in todo:
                await self._stage(stage, found, bar)
                save(self._result(found, began, ticks))

    def _result(self, found: Lineup, began: dt.datetime, ticks: tuple[int, int, int]) -> Result:
        """All that is known so far."""
        spent = [new - old for new, old in zip(machine.processor_time(), ticks, strict=True)]
        return {
            "date": began.date().isoformat(),
            "seconds": round((dt.datetime.now(dt.UTC) - began).total_seconds()),
            "stolen_share": spent[1] / spent[0],
            "machine": machine.describe(self._peer_lock),
            "options": dataclasses.asdict(self._options),
            "contestants": found.described(),
            "absent": found.absent,
            "naive_padding": {mix: self._naive(mix) for mix in self._options.mixes},
            "cells": self._cells,
            "bare_forward_ms": self._light,
        }

    async def _stage(self, stage: Stage, found: Lineup, bar: Any) -> None:
        """All turns of a stage: in each round everybody plays every cell, in an order that rotates."""
        names = [name for name in stage.names if name in found.contestants]
        cells = [self._loaded(cell, stage) for cell in stage.cells]
        turns: dict[Cell, list[Turn]] = {cell: [] for cell in cells}
        players = [f"{place} {name}" for place, name in itertools.product(range(len(cells)), names)]
        for number in range(stage.rounds):
            for player in rounds.order(players, number * max(1, len(players) // stage.rounds)):
                place, name = player.split(" ", 1)
                cell = cells[int(place)]
                bar.set_description(f"{cell.group} {cell.mix}, {name}")
                turn = await self._turn(found, name, cell, number, stage.seconds)
                if turn is not None:
                    turns[cell].append(turn)
                bar.update()
            if stage.cells[0].group == "alone":
                await self._bare_forward(found, stage)
        bar.update(stage.rounds * len(cells) * (len(stage.names) - len(names)))
        self._cells += [
            {**dataclasses.asdict(cell), "load": stage.load, "turns": list(map(dataclasses.asdict, turns[cell]))}
            for cell in cells
        ]

    async def _turn(self, found: Lineup, name: str, cell: Cell, number: int, seconds: float) -> Turn | None:
        try:
            return await found.contestants[name].turn(cell, self._texts(cell.mix, cell.texts), number, seconds)
        except (EngineError, TimeoutError, ProcessLookupError) as error:
            # It does not come back; the others go on.
            found.dismiss(name, f"in {cell.group}, {cell.mix}", error)
            return None

    async def _bare_forward(self, found: Lineup, stage: Stage) -> None:
        """Single texts through the bare engines, between the rounds of the server's single client."""
        for name in (roster.COMPILED, roster.COMPILED_FLOAT32):
            engine = found.contestants.get(name)
            if isinstance(engine, BareEngine):
                for cell in stage.cells:
                    where = f"in {cell.group}, {cell.mix}"
                    told = await found.ask(engine, where, "forward", mix=cell.mix, seconds=stage.seconds)
                    if told is None:
                        break
                    self._light.setdefault(name, []).append(1000 * float(np.median(told["seconds"])))

    def _loaded(self, cell: Cell, stage: Stage) -> Cell:
        """An open loop's rate: a multiple of what coral-gpu-inference, else Sluice, did in the closed loop."""
        if stage.load is None:
            return cell
        closed = [one for one in self._cells if one["group"] == "ids-1" and one["mix"] == cell.mix]
        turns = [Turn(**turn) for one in closed for turn in one["turns"]]
        for name in (roster.CORAL, roster.NATIVE):
            capacity = rounds.figure(turns, name, lambda turn: turn.requests_per_second)
            if capacity is not None and capacity.median:
                return dataclasses.replace(cell, per_second=stage.load * capacity.median)
        raise SystemExit("--group open: its load is taken from ids-1; expected both")

    def _texts(self, mix: str, texts: int) -> list[Rows]:
        if (mix, texts) not in self._work:
            count = plan.request_count(Cell("", mix, texts))
            self._work[mix, texts] = draw(self._vocabulary, mix, count, texts=texts)
        return self._work[mix, texts]

    def _naive(self, mix: str) -> float:
        return rounds.naive_padding([int(rows.lengths[0]) for rows in self._texts(mix, 1)], _NAIVE_ROWS)


def _turns(stages: Sequence[Stage]) -> int:
    return sum(stage.rounds * len(stage.cells) * len(stage.names) for stage in stages)
