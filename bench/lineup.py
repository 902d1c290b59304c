"""Starts everybody who takes part, checks that they compute the model, and says who could not come, and why."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import callers, checks, peers, process
from bench.contestants import BareEngine, Contestant, EngineError, Server
from bench.engines.base import Texts
from bench.engines.worker import write_texts
from bench.peers import PeerUnavailableError
from bench.workload import Rows, as_ids, as_openai, as_padded_ids, as_texts

_EXPORT_SECONDS = 600
_IDLE_SECONDS = 2.0
REFERENCE = "sentence-transformers float32"
NATIVE, FLOAT32 = "Sluice", "Sluice float32"
COMPILED, COMPILED_FLOAT32 = "packed engine", "packed engine float32"
CORAL, CORAL_FLOAT32 = "coral bfloat16", "coral float32"


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are.

    Attributes:
        model: A folder.
        cache: Of compiled and converted models.
        environment: Of the peers that need their own packages (dev/locks/peers.txt).
        room: For this run alone: logs, texts.
        threads: For everybody.
    """

    model: Path
    cache: Path
    environment: Path
    room: Path
    threads: int


@dataclass(slots=True)
class About:
    """What is said of one contestant.

    Attributes:
        lowest_cosine: To sentence-transformers in float32, of the fixed texts; None until checked.
        pooled_without_special: The same to the model pooled without [CLS] and [SEP]; only where the peer does so.
        idle_cpu: Cores that it takes while it has nothing to do.
        ways: How a bare engine is used for each mix, as found.
    """

    name: str
    kind: str
    what: str
    lowest_cosine: float | None = None
    pooled_without_special: float | None = None
    idle_cpu: float | None = None
    ways: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Lineup:
    """Who takes part."""

    contestants: dict[str, Contestant] = field(default_factory=dict)
    about: dict[str, About] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    embedders: dict[str, checks.Embed] = field(default_factory=dict)

    def add(self, contestant: Contestant, about: About, embed: checks.Embed | None = None) -> None:
        """One more."""
        self.contestants[contestant.name] = contestant
        self.about[contestant.name] = about
        if embed is not None:
            self.embedders[contestant.name] = embed

    @property
    def servers(self) -> list[Server]:
        """Of the contestants."""
        return [one for one in self.contestants.values() if isinstance(one, Server)]

    @property
    def engines(self) -> list[BareEngine]:
        """Of the contestants."""
        return [one for one in self.contestants.values() if isinstance(one, BareEngine)]

    def described(self) -> list[dict[str, Any]]:
        """For the results."""
        return [asdict(one) for one in self.about.values()]


async def assemble(
    stack: contextlib.ExitStack, place: Place, wanted: Callable[[str], bool], tell: Callable[[str], None]
) -> Lineup:
    """Starts all that are wanted, one after the other."""
    lineup = Lineup()
    exported = _exported(place, lineup) if any(map(wanted, (*_ONNX, *_OPENVINO, "infinity optimum"))) else None
    # They load while the servers start.
    engines = [
        stack.enter_context(
            contextlib.closing(BareEngine(name, command, place.room / f"{_slug(name)}.log", place.threads))
        )
        for name, command in _engines(place, exported).items()
        if wanted(name) or name == REFERENCE
    ]
    for name, start in _servers(place, exported).items():
        if wanted(name):
            tell(f"starting {name}")
            _enter(stack, lineup, name, start)
    for engine in engines:
        tell(f"starting {engine.name}")
        try:
            await engine.wait()
        except EngineError as error:
            lineup.absent[engine.name] = str(error)
        else:
            lineup.add(engine, About(engine.name, "engine", _WHAT[engine.name]))
    await _check(lineup, place)
    await _watch_idle(lineup, tell)
    return lineup


async def load_texts(lineup: Lineup, place: Place, mix: str, work: Sequence[Rows]) -> None:
    """Gives the bare engines the texts of a mix; each finds its best way with them."""
    path = place.room / f"{mix}.npz"
    write_texts(path, Texts([one for rows in work for one in rows.split()], [t for rows in work for t in rows.texts]))
    for engine in lineup.engines:
        engine.ways[mix] = await engine.ask("load", mix=mix, path=str(path))
        lineup.about[engine.name].ways = engine.ways


Start = Callable[[contextlib.ExitStack], tuple[Server, checks.Embed]]
_ONNX = ("ONNX Runtime float32", "ONNX Runtime int8")
_OPENVINO = ("OpenVINO float32", "OpenVINO bfloat16")
_WHAT = {
    NATIVE: "gRPC, `DTYPE=auto`, once its fastest engine is in",
    FLOAT32: "the same with `DTYPE=float32`",
    CORAL: "gRPC; the checkpoint that it computes in bfloat16",
    CORAL_FLOAT32: "gRPC; the checkpoint that it computes in float32",
    "infinity torch": "HTTP, texts only, `--engine torch`",
    "infinity optimum": "HTTP, texts only, `--engine optimum --pooling-method mean`",
    "text-embeddings-inference": "HTTP, texts only, the one at `TEI_URL`",
    COMPILED: "Sluice's backend without the server, `DTYPE=auto`, its fastest engine; texts as they come",
    COMPILED_FLOAT32: "the same in float32",
    "packed engine, eager": "the same as the model is loaded",
    REFERENCE: "`encode` on texts, in a loop",
    "sentence-transformers bfloat16": "the same with bfloat16 weights",
    "ONNX Runtime float32": "all texts sorted by length; plain or fused graph, whichever is faster",
    "ONNX Runtime int8": "the same, quantized dynamically",
    "OpenVINO float32": "all texts sorted by length; 1 or 2 streams, whichever is faster",
    "OpenVINO bfloat16": "the same with bfloat16 as its precision hint",
}
NAMES = tuple(_WHAT)
"""Of all who may take part, in the order in which they are shown."""


def _servers(place: Place, exported: Path | None) -> Mapping[str, Start]:
    folders: dict[str, Path] = {}

    def coral(name: str, dtype: str) -> Start:
        def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
            folders.update(folders or peers.coral_folders(place.model, place.cache))
            log = place.room / f"{_slug(name)}.log"
            target, pid = stack.enter_context(peers.coral(folders[dtype], log, place.threads))
            return Server(name, target, callers.coral, {"ids": as_padded_ids}, pid), checks.coral

        return start

    def infinity(name: str, engine: str) -> Start:
        def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
            binary, log = place.environment / "bin/infinity_emb", place.room / f"{_slug(name)}.log"
            folder = _with_onnx(place, exported) if engine == "optimum" else place.model
            url, pid = stack.enter_context(peers.infinity(binary, folder, engine, log, place.threads))
            return Server(name, url, callers.HttpCaller, {"texts": as_openai}, pid), checks.openai

        return start

    def tei(_: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
        if "TEI_URL" not in os.environ:
            raise PeerUnavailableError("TEI_URL is not set")
        url = peers.embeddings_url(os.environ["TEI_URL"])
        return Server("text-embeddings-inference", url, callers.HttpCaller, {"texts": as_openai}), checks.openai

    return {
        NATIVE: _sluice(place, NATIVE, "auto"),
        FLOAT32: _sluice(place, FLOAT32, "float32"),
        CORAL: coral(CORAL, "bfloat16"),
        CORAL_FLOAT32: coral(CORAL_FLOAT32, "float32"),
        "infinity torch": infinity("infinity torch", "torch"),
        "infinity optimum": infinity("infinity optimum", "optimum"),
        "text-embeddings-inference": tei,
    }


def _sluice(place: Place, name: str, dtype: str) -> Start:
    def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
        started = stack.enter_context(
            process.server(str(place.model), DTYPE=dtype, OMP_NUM_THREADS=str(place.threads), LOG_LEVEL="INFO")
        )

        def counted() -> tuple[int, int]:
            document = started.health()
            return document["computed_tokens_total"], document["padded_tokens_total"]

        encoders = {"ids": as_ids, "texts": as_texts}
        return Server(name, started.target, callers.sluice, encoders, started.pid, counted), checks.sluice

    return start


def _engines(place: Place, exported: Path | None) -> Mapping[str, list[str]]:
    def command(python: Path | str, engine: str, dtype: str, folder: Path) -> list[str]:
        module = [str(python), "-m", "bench.engines.worker", engine, dtype]
        return [*module, str(place.model), str(folder), str(place.threads)]

    found = {
        COMPILED: command(sys.executable, "compiled", "auto", place.cache),
        COMPILED_FLOAT32: command(sys.executable, "compiled", "float32", place.cache),
        "packed engine, eager": command(sys.executable, "eager", "auto", place.cache),
        REFERENCE: command(sys.executable, "sentence-transformers", "float32", place.cache),
        "sentence-transformers bfloat16": command(sys.executable, "sentence-transformers", "bfloat16", place.cache),
    }
    if exported is not None:
        python = place.environment / "bin/python"
        for name in (*_ONNX, *_OPENVINO):
            library, dtype = name.rsplit(" ", 1)
            found[name] = command(python, library.lower().replace(" ", ""), dtype, exported)
    return found


def _enter(stack: contextlib.ExitStack, lineup: Lineup, name: str, start: Start) -> None:
    try:
        server, embed = start(stack)
    except PeerUnavailableError as error:
        lineup.absent[name] = str(error)
        return
    # A process that is paused would not end.
    stack.callback(server.wake)
    lineup.add(server, About(name, "server", _WHAT[name]), embed)


def _exported(place: Place, lineup: Lineup) -> Path | None:
    """The model as ONNX, made once; None where the environment for it is missing."""
    python = place.environment / "bin/python"
    digest = hashlib.sha256(place.environment.name.encode())
    with (place.model / "model.safetensors").open("rb") as weights:
        digest.update(hashlib.file_digest(weights, "sha256").digest())
    folder = place.cache / f"onnx-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    if not python.exists():
        reason = "its environment (dev/locks/peers.txt) is not installed"
    else:
        command = [str(python), "-m", "bench.engines.export", str(place.model), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_EXPORT_SECONDS, check=False)
        if done.returncode == 0:
            return folder
        reason = f"the model could not be exported: {done.stderr.strip().splitlines()[-1][:300]}"
    lineup.absent.update(dict.fromkeys((*_ONNX, *_OPENVINO), reason))
    return None


def _with_onnx(place: Place, exported: Path | None) -> Path:
    if exported is None:
        raise PeerUnavailableError("there is no exported model")
    folder = place.room / "infinity"
    shutil.copytree(place.model, folder, dirs_exist_ok=True)
    (folder / "onnx").mkdir(exist_ok=True)
    shutil.copyfile(exported / "plain.onnx", folder / "onnx/model.onnx")
    return folder


async def _check(lineup: Lineup, place: Place) -> None:
    """Everybody's embeddings of the fixed texts against the reference's."""
    reference = lineup.contestants[REFERENCE]
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
        found = np.array((await engine.ask("embed", path=str(path)))["embeddings"])
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


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace(",", "")
