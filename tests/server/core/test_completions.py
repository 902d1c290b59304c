"""Events of gRPC's core on their way to the event loop; the queue is a list here, a real one in test_server.py."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from typing import Any

import pytest
from sluice_server.rpc.core.binding import cygrpc
from sluice_server.rpc.core.completions import Completions, Tag

WAIT_SECONDS = 30.0
DONE = object()
SHUT_DOWN = cygrpc.CompletionType.queue_shutdown
NOTHING = cygrpc.CompletionType.queue_timeout


@dataclass(frozen=True, slots=True)
class Event:
    tag: Callable[[Any, float], None] | None
    completion_type: object = DONE


class Queue:
    """Says what the test puts in."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()

    def poll(self, deadline: float | None) -> Event:
        if deadline is None:
            return self.events.get(timeout=WAIT_SECONDS)
        return self.events.get() if not self.events.empty() else Event(None, NOTHING)

    def shutdown(self) -> None:
        self.events.put(Event(None, SHUT_DOWN))


def completions_of(
    queue: object,
    pause_seconds: Callable[[], float] = lambda: 0.0,
    at_once: Callable[[Any], Tag | None] = lambda _: None,
) -> Completions:
    completions = Completions(pause_seconds, at_once)
    completions.queue = queue
    return completions


async def hand_overs(
    pause_seconds: float, events: int = 100, at_once: Callable[[Any], Tag | None] = lambda _: None
) -> list[int]:
    """How many events the loop has heard of, at the start and each time: of those that are there together."""
    queue, told, heard = Queue(), list[int](), list[int]()

    def note_hand_over() -> float:
        heard.append(len(told))
        return pause_seconds

    for number in range(events):
        queue.events.put(Event(lambda _, __, number=number: told.append(number)))  # type: ignore[misc]
    queue.shutdown()
    completions = completions_of(queue, note_hand_over, at_once)
    completions.start()
    await completions.stop()
    await asyncio.sleep(0)
    assert told == list(range(events))
    return heard


async def test_without_pauses_the_loop_hears_of_each_event_by_itself() -> None:
    assert await hand_overs(pause_seconds=0.0) == list(range(101))


async def test_with_pauses_the_loop_hears_of_all_that_is_there_at_once() -> None:
    assert await hand_overs(pause_seconds=0.001) == [0, 100]


async def test_no_pause_follows_a_look_that_found_as_many_as_it_takes() -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        assert await hand_overs(pause_seconds=2 * WAIT_SECONDS, events=600) == [0, 256, 512, 600]


async def test_what_was_begun_at_once_and_is_done_in_a_moment_comes_with_what_began_it() -> None:
    seen = count()

    def begin_with_every_other(event: Event) -> Tag | None:
        return event.tag if next(seen) % 2 == 0 else None

    assert await hand_overs(pause_seconds=0.0, events=6, at_once=begin_with_every_other) == [0, 2, 4, 6]


async def test_what_is_seen_is_taken_in_the_thread_and_gets_the_tag_that_this_gives_it() -> None:
    queue, told = Queue(), list[tuple[str, bool]]()

    def at_once(event: Event) -> Tag:
        where = threading.current_thread() is threading.main_thread()
        return lambda _, __: told.append(("its own", where))

    queue.events.put(Event(lambda _, __: told.append(("the core's", True))))
    queue.shutdown()
    completions = completions_of(queue, at_once=at_once)
    completions.start()
    await completions.stop()
    await asyncio.sleep(0)
    assert told == [("its own", False)]


async def test_an_event_whose_tag_fails_is_logged_and_loses_no_other(caplog: pytest.LogCaptureFixture) -> None:
    queue, told = Queue(), list[str]()

    def fail(event: object, seen_at: float) -> None:
        raise ValueError("a fault of ours")

    completions = completions_of(queue)
    queue.events.put(Event(fail))
    queue.events.put(Event(lambda _, __: told.append("the next")))
    completions.start()
    with caplog.at_level(logging.ERROR):
        await completions.stop()
        await asyncio.sleep(0)
    assert told == ["the next"]
    assert "a fault of ours" in caplog.text


async def test_a_thread_that_cannot_go_on_says_so_and_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Queue):
        def poll(self, deadline: float | None) -> Event:
            raise MemoryError("nothing left")

    sent, told = list[tuple[int, int]](), threading.Event()

    def kill(process: int, number: int) -> None:
        sent.append((process, number))
        told.set()

    monkeypatch.setattr(os, "kill", kill)
    completions = completions_of(Broken())
    with caplog.at_level(logging.ERROR):
        completions.start()
        assert await asyncio.to_thread(told.wait, 30)
        await completions.stop()
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert "nothing left" in caplog.text
