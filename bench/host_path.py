"""`python -m bench.host_path MODEL [FOLDER]`: what a request and a text cost the server beside the model, and where.

Eight clients ask in a closed loop, with 1, 4, 16 and 64 short texts a request, as ids and as texts, in turns that
alternate. Counted is the CPU time of every thread but the device's, which go behind the others (threads.yield_cores):
the event loop, gRPC's, the tokenizer's. What a request costs and what each text adds is fitted through the medians.
With a folder, the figures are written there, and a flame graph of one text a request (py-spy).
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from sluice_server.threads import DEVICE_NICENESS

from bench.callers import Request
from bench.load import Generator
from bench.process import ServerProcess, server
from bench.workload import as_ids, as_texts, draw, read_vocabulary

_MIX = "queries"
_CLIENTS = 8
_TEXTS = (1, 4, 16, 64)
_ROUNDS = 3
_TURN_SECONDS = 4.0
_FLAME_SECONDS = 20
_FLAMES_PER_SECOND = 200
_NICE_FIELD = 16
Turns = dict[tuple[str, int], list[float]]


def main() -> None:
    """Prints the figures as JSON."""
    model = str(Path(sys.argv[1]).resolve())
    folder = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None  # noqa: PLR2004
    with server(model) as process:
        measured = uvloop.run(measure(process, model, folder))
    text = json.dumps(measured, indent=1)
    print(text)
    if folder is not None:
        (folder / "host_path.json").write_text(text + "\n")


async def measure(process: ServerProcess, model: str, folder: Path | None) -> dict[str, Any]:
    """Microseconds of CPU of a request with so many texts, and the fit through them."""
    vocabulary, turns = read_vocabulary(model), Turns()
    work = {texts: draw(vocabulary, _MIX, max(64, 2000 // texts), texts=texts) for texts in _TEXTS}
    made = {
        (given, texts): encode(work[texts])
        for given, encode in (("ids", as_ids), ("texts", as_texts))
        for texts in _TEXTS
    }
    for _ in range(_ROUNDS):
        for cell, asked in made.items():
            turns.setdefault(cell, []).append(await _turn(process, asked))
    if folder is not None:
        await _draw_flames(process, made["ids", 1], folder / "host_path.svg")
    found = {given: {texts: float(np.median(turns[given, texts])) for texts in _TEXTS} for given in ("ids", "texts")}
    return {
        "mix": _MIX,
        "clients": _CLIENTS,
        "us_of_a_request": {given: {str(texts): round(us) for texts, us in of.items()} for given, of in found.items()},
        "fit": {given: _fit(of) for given, of in found.items()},
    }


async def _turn(process: ServerProcess, made: list[Request]) -> float:
    """Microseconds of the host's CPU for each request."""
    generator = Generator(process.target)
    await generator.closed_loop(made, clients=_CLIENTS, seconds=_TURN_SECONDS / 4)
    generator.answers.clear()
    before = _host_cpu_seconds(process.pid)
    await generator.closed_loop(made, clients=_CLIENTS, seconds=_TURN_SECONDS)
    spent = _host_cpu_seconds(process.pid) - before
    await generator.close()
    return 1e6 * spent / sum(one.code == "OK" for one in generator.answers)


async def _draw_flames(process: ServerProcess, made: list[Request], path: Path) -> None:
    """Samples what Python does under load; without stopping it, as that would be the load."""
    generator = Generator(process.target)
    load = asyncio.create_task(generator.closed_loop(made, clients=_CLIENTS, seconds=_FLAME_SECONDS + 2))
    command = [
        str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking",
        "--rate", str(_FLAMES_PER_SECOND), "--duration", str(_FLAME_SECONDS),
        "--threads", "--format", "flamegraph", "--output", str(path), "--pid", str(process.pid),
    ]  # fmt: skip
    watcher = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=_FLAME_SECONDS + 30
    )
    await load
    await generator.close()
    if watcher.returncode:
        raise SystemExit(f"py-spy: {watcher.stderr.strip()}")
    await asyncio.to_thread(_retitle, path, " ".join(command))


def _retitle(path: Path, command: str) -> None:
    """The graph's title is the command, with this machine's folders in it."""
    path.write_text(path.read_text().replace(command, "python -m bench.host_path"))


def _host_cpu_seconds(pid: int) -> float:
    """Of the threads that are not the device's."""
    spent = 0.0
    for task in os.scandir(f"/proc/{pid}/task"):
        fields = Path(task.path, "stat").read_text().rpartition(")")[2].split()
        if int(fields[_NICE_FIELD]) < DEVICE_NICENESS:
            spent += int(Path(task.path, "schedstat").read_text().split()[0]) / 1e9
    return spent


def _fit(us_by_texts: dict[int, float]) -> dict[str, float]:
    """Least squares of request + texts x text, each cell weighing by its own size."""
    texts = np.array(list(us_by_texts), dtype=float)
    us = np.array(list(us_by_texts.values()))
    scaled = np.stack([np.ones_like(texts), texts], axis=1) / us[:, None]
    request, text = np.linalg.lstsq(scaled, np.ones_like(us), rcond=None)[0]
    return {"us_per_request": round(float(request)), "us_per_text": round(float(text), 1)}


if __name__ == "__main__":
    main()
