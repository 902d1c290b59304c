"""What ends calls leaves together."""

import asyncio
import logging
from typing import Any

import pytest
from sluice_server.rpc.core.outbox import Outbox


class Core:
    """A call's side of gRPC's core that notes when it was told to end, in rounds of the event loop."""

    def __init__(self, rounds: list[int], told: list[tuple[int, object]]) -> None:
        self._rounds, self._told = rounds, told

    def start_server_batch(self, operations: tuple[Any, ...], tag: object) -> None:
        self._told.append((self._rounds[0], operations[0]))
        assert tag is ignore


def ignore(event: object, seen_at: float) -> None:
    raise AssertionError("nothing of it happens here")


async def test_calls_that_end_in_one_round_leave_together_behind_it_in_their_order() -> None:
    rounds, told = [0], list[tuple[int, object]]()
    outbox, core = Outbox(), Core(rounds, told)
    loop = asyncio.get_running_loop()
    for name in ("first", "second", "third"):
        loop.call_soon(outbox.put, core, (name,), ignore)
    loop.call_soon(rounds.__setitem__, 0, 1)
    loop.call_soon(outbox.put, core, ("fourth",), ignore)
    await asyncio.sleep(0)
    assert told == []
    await asyncio.sleep(0)
    assert told == [(1, "first"), (1, "second"), (1, "third"), (1, "fourth")]


async def test_what_ends_later_leaves_later() -> None:
    told = list[tuple[int, object]]()
    outbox, core = Outbox(), Core([0], told)
    for name in ("first", "second"):
        outbox.put(core, (name,), ignore)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert told[-1] == (0, name)


async def test_a_call_that_cannot_be_ended_is_logged_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Core):
        def start_server_batch(self, operations: tuple[Any, ...], tag: object) -> None:
            raise TypeError("no such trailer")

    told, over = list[tuple[int, object]](), list[str]()
    outbox = Outbox()
    outbox.put(Broken([0], told), ("first",), lambda _, __: over.append("first"))
    outbox.put(Core([0], told), ("second",), ignore)
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(0)
    assert over == ["first"]
    assert told == [(0, "second")]
    assert "no such trailer" in caplog.text
