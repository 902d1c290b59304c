"""Front ends as processes, kept by a supervisor in this one, with an engine and no model."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sluice_server.frontends import supervisor
from sluice_server.frontends.setup import FrontEndConfig
from sluice_server.frontends.supervisor import FrontEnds
from sluice_server.validation import RequestLimits

from tests.server.test_engine import new_engine

if TYPE_CHECKING:
    from sluice_server.observability.observations import Observations

CONFIG = FrontEndConfig("", RequestLimits(10, 1000), 1, 1 << 20, 300, None, None, "INFO", "json")


@pytest.fixture
async def one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> AsyncIterator[FrontEnds]:
    caplog.set_level("INFO")
    monkeypatch.setattr(supervisor, "_LOOK_SECONDS", 0.1)
    # It beats every 5 s.
    monkeypatch.setattr(supervisor, "_SILENT_AFTER_SECONDS", 10.0)
    engine, _ = new_engine()
    told: list[Observations] = []
    front_ends = FrontEnds(engine, CONFIG, 1, told.append)
    await front_ends.start("127.0.0.1:0")
    yield front_ends
    await front_ends.stop(grace_seconds=1)
    assert front_ends.listening == 0
    assert not any(one.began or one.ended for one in told), "nobody asked"


def who_listened(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Process ids, in the order in which they came."""
    said = caplog.get_records("setup") + caplog.get_records("call")
    return [vars(record)["pid"] for record in said if record.message == "a front end listens"]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_one_that_stands_still_is_killed_and_another_one_takes_its_place(
    one: FrontEnds, caplog: pytest.LogCaptureFixture
) -> None:
    assert (one.listening, one.died) == (1, 0)
    (first,) = who_listened(caplog)
    os.kill(first, signal.SIGSTOP)
    async with asyncio.timeout(60):
        while len(who_listened(caplog)) < 2:  # noqa: ASYNC110 - a process has nothing to wait for
            await asyncio.sleep(0.05)
    assert "a front end died: it said nothing for 10 s" in caplog.text
    assert (one.listening, one.died) == (1, 1)
    assert not is_there(first)
