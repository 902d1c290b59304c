"""How each server that takes part is started, asked and checked."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import callers, checks, peers, process, roster
from bench.contestants import Server
from bench.peers import PeerUnavailableError
from bench.place import Place
from bench.workload import as_ids, as_openai, as_padded_ids, as_texts

# More than a thousand clients can ask for at once, on any machine.
_PATIENT_MS = 60_000
Start = Callable[[contextlib.ExitStack], tuple[Server, checks.Embed]]


def starts(place: Place, exported: Path | None) -> Mapping[str, Start]:
    """How each is started, by name; a start raises PeerUnavailableError where the peer cannot take part."""
    folders: dict[str, Path] = {}

    def coral(name: str, dtype: str) -> Start:
        def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
            folders.update(folders or peers.coral_folders(place.model, place.cache))
            target, pid = stack.enter_context(peers.coral(folders[dtype], place.log(name), place.threads))
            return Server(name, target, callers.coral, {"ids": as_padded_ids}, pid), checks.coral

        return start

    def infinity(name: str, engine: str) -> Start:
        def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
            binary = place.environment / "bin/infinity_emb"
            folder = _with_onnx(place, exported) if engine == "optimum" else place.model
            url, pid = stack.enter_context(peers.infinity(binary, folder, engine, place.log(name), place.threads))
            return Server(name, url, callers.HttpCaller, {"texts": as_openai}, pid), checks.openai

        return start

    def tei(_: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
        if "TEI_URL" not in os.environ:
            raise PeerUnavailableError("TEI_URL is not set")
        url = peers.embeddings_url(os.environ["TEI_URL"])
        return Server("text-embeddings-inference", url, callers.HttpCaller, {"texts": as_openai}), checks.openai

    return {
        roster.NATIVE: _sluice(place, roster.NATIVE, "auto"),
        roster.FLOAT32: _sluice(place, roster.FLOAT32, "float32"),
        roster.PATIENT: _sluice(place, roster.PATIENT, "auto", BACKPRESSURE_MAX_DRAIN_MS=str(_PATIENT_MS)),
        roster.PADDED: _sluice(place, roster.PADDED, "auto", LAYOUT="padded", COMPILE="off"),
        roster.CORAL: coral(roster.CORAL, "bfloat16"),
        roster.CORAL_FLOAT32: coral(roster.CORAL_FLOAT32, "float32"),
        "infinity torch": infinity("infinity torch", "torch"),
        "infinity optimum": infinity("infinity optimum", "optimum"),
        "text-embeddings-inference": tei,
    }


def _sluice(place: Place, name: str, dtype: str, **settings: str) -> Start:
    def start(stack: contextlib.ExitStack) -> tuple[Server, checks.Embed]:
        started = stack.enter_context(
            process.server(
                str(place.model), DTYPE=dtype, OMP_NUM_THREADS=str(place.threads), LOG_LEVEL="INFO", **settings
            )
        )

        def counted() -> tuple[int, int]:
            document = started.health()
            return document["computed_tokens_total"], document["padded_tokens_total"]

        encoders = {"ids": as_ids, "texts": as_texts}
        return Server(name, started.target, callers.sluice, encoders, started.pid, counted), checks.sluice

    return start


def _with_onnx(place: Place, exported: Path | None) -> Path:
    if exported is None:
        raise PeerUnavailableError("there is no exported model")
    folder = place.room / "infinity"
    shutil.copytree(place.model, folder, dirs_exist_ok=True)
    (folder / "onnx").mkdir(exist_ok=True)
    shutil.copyfile(exported / "plain.onnx", folder / "onnx/model.onnx")
    return folder
