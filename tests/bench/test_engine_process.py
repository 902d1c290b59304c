"""Engines in processes of their own."""

import sys
from pathlib import Path

import pytest

from bench import engine_process
from bench.engine_process import BareEngine
from bench.lineup import About, Lineup

NEVER_ANSWERS = "import sys, time; print('{}', flush=True); time.sleep(600)"


async def test_an_engine_that_does_not_answer_is_dismissed_and_its_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "_REPLY_SECONDS", 1.0)
    engine = BareEngine("stuck", [sys.executable, "-c", NEVER_ANSWERS], tmp_path / "log", threads=1)
    await engine.wait()
    lineup = Lineup()
    lineup.add(engine, About("stuck", "engine", "never answers"))
    assert await lineup.ask(engine, "on its first texts", "load") is None
    assert lineup.engines == []
    assert lineup.absent == {"stuck": "it ended on its first texts: it did not answer in time"}
    assert engine._process.poll() is not None
