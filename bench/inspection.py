"""What is found out about everybody before the turns: whether they compute the model, what they take, how they work."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from bench import checks, process, roster
from bench.contestants import Server
from bench.engine_process import BareEngine
from bench.engines.base import Texts
from bench.engines.worker import write_texts
from bench.lineup import Lineup
from bench.place import Place
from bench.workload import Rows

_IDLE_SECONDS = 2.0


async def inspect(lineup: Lineup, place: Place, tell: Callable[[str], None]) -> None:
    """Compares all embeddings with the reference's, and watches the idle servers, which are paused then."""
    await _check(lineup, place)
    await _watch_idle(lineup, tell)


async def load_texts(lineup: Lineup, place: Place, mix: str, work: Sequence[Rows]) -> None:
    """Gives the bare engines the texts of a mix; each finds its best way with them."""
    path = place.room / f"{mix}.npz"
    write_texts(path, Texts([one for rows in work for one in rows.split()], [t for rows in work for t in rows.texts]))
    for engine in lineup.engines:
        found = await lineup.ask(engine, f"on the first texts of {mix}", "load", mix=mix, path=str(path))
        if found is not None:
            engine.ways[mix] = found
            lineup.about[engine.name].ways = engine.ways


async def _check(lineup: Lineup, place: Place) -> None:
    """Everybody's embeddings of the fixed texts against the reference's."""
    reference = lineup.contestants[roster.REFERENCE]
    assert isinstance(reference, BareEngine)
    rows = checks.as_rows((await reference.ask("tokenize", texts=list(checks.TEXTS)))["ids"], checks.TEXTS)
    path = place.room / "check.npz"
    write_texts(path, Texts(rows.split(), rows.texts))
    told = await reference.ask("reference", path=str(path))
    expected, without = (np.array(told[key]) for key in ("embeddings", "without_special_tokens"))
    for name, embed in lineup.embedders.items():
        server = lineup.contestants[name]
        assert isinstance(server, Server)
        found = await asyncio.to_thread(embed, server.target, rows)
        lineup.about[name].lowest_cosine = checks.lowest_cosine(found, expected)
        if embed is checks.coral:
            lineup.about[name].pooled_without_special = checks.lowest_cosine(found, without)
    for engine in lineup.engines:
        told = await lineup.ask(engine, "on the fixed texts", "embed", path=str(path))
        if told is not None:
            found = np.array(told["embeddings"])
            lineup.about[engine.name].lowest_cosine = checks.lowest_cosine(found, expected)


async def _watch_idle(lineup: Lineup, tell: Callable[[str], None]) -> None:
    """What each server takes while it has nothing to do, one at a time; then it is paused."""
    tell("watching idle servers")
    before = {server.name: process.cpu_seconds(server.pid) for server in lineup.servers if server.pid is not None}
    await asyncio.sleep(_IDLE_SECONDS)
    for server in lineup.servers:
        if server.pid is not None:
            taken = process.cpu_seconds(server.pid) - before[server.name]
            lineup.about[server.name].idle_cpu = taken / _IDLE_SECONDS
        server.sleep()
