"""The server on gRPC's core, asked by gRPC's own client."""

import asyncio
import contextvars
import gc
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from sluice_server.rpc.core import server as server_module
from sluice_server.rpc.core.call import ServerCall
from sluice_server.rpc.core.method import Method
from sluice_server.rpc.core.server import CoreServer

WAIT_SECONDS = 30.0


def same(data: bytes) -> bytes:
    return data


@dataclass(slots=True)
class Served:
    """A server with some methods, and a channel to it."""

    server: CoreServer
    channel: grpc.aio.Channel
    port: int
    # What methods saw of their end, and the calls that hang until they end.
    ended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    hanging: asyncio.Queue[ServerCall] = field(default_factory=asyncio.Queue)

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/test.Test/{name}", same, same)

    def stream(self, name: str) -> Any:
        return self.channel.stream_stream(f"/test.Test/{name}", same, same)

    async def echo(self, request: bytes, call: ServerCall) -> bytes:
        call.set_trailing_metadata((("key", "value"), ("key-bin", b"\x00\xff")))
        said = dict(call.invocation_metadata())
        return request + str(said.get("asked", "")).encode()

    async def refuse(self, request: bytes, call: ServerCall) -> None:
        call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now", (("grpc-retry-pushback-ms", "7"),))

    async def abort(self, request: bytes, call: ServerCall) -> bytes:
        await call.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return b"never"

    async def fail(self, request: bytes, call: ServerCall) -> bytes:
        raise ValueError("a secret")

    async def hang(self, request: bytes, call: ServerCall) -> bytes:
        self.hanging.put_nowait(call)
        try:
            await asyncio.sleep(WAIT_SECONDS)
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise
        return request

    async def finish_soon(self, request: bytes, call: ServerCall) -> bytes:
        self.hanging.put_nowait(call)
        await asyncio.sleep(0.1)
        return request

    async def echo_all(self, requests: AsyncIterator[bytes], call: ServerCall) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        finally:
            self.ended.put_nowait("stream")

    async def count(self, request: bytes, call: ServerCall) -> None:
        for number in range(int(request)):
            await call.write(str(number).encode())

    async def heard_of_its_end(self) -> str:
        return await asyncio.wait_for(self.ended.get(), WAIT_SECONDS)


@asynccontextmanager
async def served(options: tuple[tuple[str, Any], ...] = (), pause_seconds: float = 0.0) -> AsyncIterator[Served]:
    server = CoreServer(options, lambda: pause_seconds)
    port = server.listen("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        made = Served(server, channel, port)
        behaviors = {
            "Echo": (made.echo, False),
            "Refuse": (made.refuse, False),
            "Abort": (made.abort, False),
            "Fail": (made.fail, False),
            "Hang": (made.hang, False),
            "FinishSoon": (made.finish_soon, False),
            "EchoAll": (made.echo_all, True),
            "Count": (made.count, False),
        }
        server.add_methods(
            "test.Test",
            {name: Method(behavior, streams, same, same) for name, (behavior, streams) in behaviors.items()},
        )
        server.start()
        try:
            yield made
        finally:
            await server.stop(0)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_method_answers_with_what_it_was_asked_and_its_trailers() -> None:
    async with served() as one:
        call = one.unary("Echo")(b"hello ", metadata=(("asked", "world"),), timeout=WAIT_SECONDS)
        assert await call == b"hello world"
        assert dict(await call.trailing_metadata()) == {"key": "value", "key-bin": b"\x00\xff"}


async def test_an_empty_request_is_one() -> None:
    async with served() as one:
        assert await one.unary("Echo")(b"", timeout=WAIT_SECONDS) == b""


async def test_a_call_that_is_ended_has_its_status_its_sentence_and_its_trailers() -> None:
    async with served() as one:
        error = await error_of(one.unary("Refuse")(b"", timeout=WAIT_SECONDS))
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
    assert dict(error.trailing_metadata()) == {"grpc-retry-pushback-ms": "7"}


async def test_a_refused_call_is_repeated_by_grpcs_own_clients_as_no_message_went_before_its_status() -> None:
    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff": "0.01s", "maxBackoff":'
        ' "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}'
    )
    attempts = list[object]()

    async def refuse_once(request: bytes, call: ServerCall) -> bytes | None:
        attempts.append(dict(call.invocation_metadata()).get("grpc-previous-rpc-attempts"))
        if len(attempts) == 1:
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now", ())
            return None
        return request

    async with served() as one:
        one.server.add_methods("test.Retry", {"Once": Method(refuse_once, False, same, same)})
        options = (("grpc.service_config", policy),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}", options=options) as channel:
            assert await channel.unary_unary("/test.Retry/Once", same, same)(b"x", timeout=WAIT_SECONDS) == b"x"
    assert attempts == [None, "1"]


async def test_a_method_that_aborts_goes_no_further() -> None:
    async with served() as one:
        error = await error_of(one.unary("Abort")(b"", timeout=WAIT_SECONDS))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")


async def test_a_method_that_fails_is_logged_tells_the_caller_nothing_and_the_next_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as one:
        with caplog.at_level(logging.ERROR):
            error = await error_of(one.unary("Fail")(b"", timeout=WAIT_SECONDS))
        assert await one.unary("Echo")(b"next", timeout=WAIT_SECONDS) == b"next"
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "a secret" not in str(error.details())
    assert "a secret" in caplog.text


async def test_a_method_that_is_not_there_is_named() -> None:
    async with served() as one:
        error = await error_of(one.unary("Nothing")(b"", timeout=WAIT_SECONDS))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "there is no method /test.Test/Nothing")


async def test_a_caller_that_leaves_cancels_its_method() -> None:
    async with served() as one:
        call = one.unary("Hang")(b"")
        await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)
        call.cancel()
        assert await one.heard_of_its_end() == "cancelled"


async def test_a_method_knows_the_callers_deadline_and_is_cancelled_at_it() -> None:
    async with served() as one:
        call = asyncio.ensure_future(one.unary("Hang")(b"", timeout=0.5))
        seen = await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)
        remaining = seen.time_remaining()
        assert remaining is not None
        # On the wire it is whole milliseconds, rounded up; and clocks are converted on both sides.
        assert 0 < remaining <= 0.502
        assert await one.heard_of_its_end() == "cancelled"
        assert (await error_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_without_a_deadline_has_none() -> None:
    async with served() as one:
        call = one.unary("Hang")(b"")
        assert (await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)).time_remaining() is None
        call.cancel()
        await one.heard_of_its_end()


async def test_a_stream_is_answered_while_it_goes_on_and_ends_with_its_caller() -> None:
    async with served() as one:
        call = one.stream("EchoAll")(timeout=WAIT_SECONDS)
        for number in range(100):
            await call.write(str(number).encode())
            assert await call.read() == str(number).encode()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert await one.heard_of_its_end() == "stream"


async def test_a_stream_whose_caller_leaves_is_closed() -> None:
    async with served() as one:
        call = one.stream("EchoAll")(timeout=WAIT_SECONDS)
        await call.write(b"first")
        assert await call.read() == b"first"
        call.cancel()
        assert await one.heard_of_its_end() == "stream"


async def test_a_method_may_write_many_answers_to_one_request() -> None:
    async with served() as one:
        call = one.channel.unary_stream("/test.Test/Count", same, same)(b"50", timeout=WAIT_SECONDS)
        assert [answer async for answer in call] == [str(number).encode() for number in range(50)]


async def test_a_call_without_a_message_is_told_what_is_missing() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    async with served() as one:
        error = await error_of(one.channel.stream_unary("/test.Test/Echo", same, same)(nothing(), timeout=WAIT_SECONDS))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the call brought no message; expected one",
    )


async def test_a_message_that_is_too_long_is_refused_and_the_next_is_served() -> None:
    async with served((("grpc.max_receive_message_length", 1000),)) as one:
        error = await error_of(one.unary("Echo")(bytes(1001), timeout=WAIT_SECONDS))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await one.unary("Echo")(bytes(1000), timeout=WAIT_SECONDS) == bytes(1000)


async def test_a_thousand_calls_at_once_are_answered_though_the_core_is_seldom_looked_at() -> None:
    async with served(pause_seconds=0.05) as one:
        requests = [str(number).encode() for number in range(1000)]
        calls = (one.unary("Echo")(request, timeout=WAIT_SECONDS) for request in requests)
        assert await asyncio.gather(*calls) == requests


async def test_a_method_may_end_its_call_or_fail_at_once_without_a_task() -> None:
    tasks, loop = list[object](), asyncio.get_running_loop()

    def note(loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Task[Any]:
        tasks.append(coro)
        return asyncio.Task(coro, loop=loop, **how)

    def refuse(request: bytes, call: ServerCall) -> None:
        call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now", ())

    def fail(request: bytes, call: ServerCall) -> None:
        raise ValueError("a secret")

    async with served() as one:
        one.server.add_methods("test.Now", {"Refuse": Method(refuse, False, same, same)})
        one.server.add_methods("test.Now", {"Fail": Method(fail, False, same, same)})
        asks = [one.channel.unary_unary(f"/test.Now/{name}", same, same) for name in ("Refuse", "Fail")]
        loop.set_task_factory(note)
        try:
            replies = [ask(b"", timeout=WAIT_SECONDS) for ask in asks]
            codes = [await reply.code() for reply in replies]
        finally:
            loop.set_task_factory(None)
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN]
        assert "secret" not in await replies[1].details()
    assert not [one for one in tasks if "ServerCall" in repr(one)]


async def test_what_a_method_sets_of_the_context_is_its_own_calls() -> None:
    number = contextvars.ContextVar("number", default=b"nobody's")

    def begin(request: bytes, call: ServerCall) -> Awaitable[bytes]:
        before = number.get()
        number.set(request)
        return after(before)

    async def after(before: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return before + b" " + number.get()

    async with served() as one:
        one.server.add_methods("test.Context", {"Begin": Method(begin, False, same, same)})
        ask = one.channel.unary_unary("/test.Context/Begin", same, same)
        replies = await asyncio.gather(*(ask(b"%d" % place, timeout=WAIT_SECONDS) for place in range(20)))
        assert replies == [b"nobody's %d" % place for place in range(20)]


async def test_a_call_knows_how_long_it_waited_for_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, waited_ms = 20, list[float]()
    message_seen, see = threading.Semaphore(0), CoreServer._read_at_once

    def see_and_count(server: CoreServer, event: Any) -> Any:
        tag = see(server, event)
        if tag is None:
            message_seen.release()
        return tag

    def hold_the_event_loop() -> None:
        """But not the thread that sees messages come: until it has seen all, and 300 ms more."""
        for _ in range(calls):
            assert message_seen.acquire(timeout=WAIT_SECONDS)
        time.sleep(0.3)

    async def work(request: bytes, call: ServerCall) -> bytes:
        waited_ms.append(call.waited_ms())
        if len(waited_ms) == 1:
            hold_the_event_loop()
        return request

    monkeypatch.setattr(CoreServer, "_read_at_once", see_and_count)
    async with served() as one:
        one.server.add_methods("test.Busy", {"Work": Method(work, False, same, same)})
        # Its caller is another thread: this event loop is what calls wait for.
        with grpc.insecure_channel(f"127.0.0.1:{one.port}") as channel:
            ask = channel.unary_unary("/test.Busy/Work", same, same)

            def ask_all_at_once() -> None:
                for call in [ask.future(b"", timeout=WAIT_SECONDS) for _ in range(calls)]:
                    call.result()

            await asyncio.to_thread(ask_all_at_once)
    assert len(waited_ms) == calls
    assert min(waited_ms[1:]) > 250


async def test_a_caller_that_sends_its_message_late_has_waited_for_nobody() -> None:
    waited_ms, began = list[float](), time.monotonic()

    async def note(request: bytes, call: ServerCall) -> bytes:
        waited_ms.append(call.waited_ms())
        return request

    async with served() as one:
        one.server.add_methods("test.Late", {"Note": Method(note, False, same, same)})
        call = one.channel.stream_unary("/test.Late/Note", same, same)(timeout=WAIT_SECONDS)
        await call.wait_for_connection()
        # Its own time, as a slow network would take it.
        await asyncio.sleep(0.5)
        await call.write(b"late")
        await call.done_writing()
        assert await call == b"late"
    assert waited_ms[0] < 1000 * (time.monotonic() - began) - 500


async def test_callers_that_never_send_their_message_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_MOST_SEEN", 2)
    async with served() as one:
        silent = [one.channel.stream_unary("/test.Test/Echo", same, same)(timeout=WAIT_SECONDS) for _ in range(20)]
        for call in silent:
            await call.wait_for_connection()
        assert await one.unary("Echo")(b"heard", timeout=WAIT_SECONDS) == b"heard"
        for call in silent:
            call.cancel()


async def test_nothing_is_kept_of_calls_that_are_over() -> None:
    async with served() as one:
        for name in ("Echo", "Refuse", "Abort"):
            calls = [one.unary(name)(b"", timeout=WAIT_SECONDS) for _ in range(20)]
            await asyncio.gather(*calls, return_exceptions=True)
        deadline = time.monotonic() + WAIT_SECONDS
        gc.disable()
        try:
            while left := sum(type(thing) is ServerCall for thing in gc.get_objects()):
                assert time.monotonic() < deadline, f"{left} calls are kept"
                await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_a_stop_lets_calls_end_within_the_grace_and_takes_no_new_ones() -> None:
    async with served() as one:
        call = asyncio.ensure_future(one.unary("FinishSoon")(b"done", timeout=WAIT_SECONDS))
        await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)
        stopping = asyncio.ensure_future(one.server.stop(WAIT_SECONDS))
        assert await call == b"done"
        await asyncio.wait_for(stopping, WAIT_SECONDS)
        assert (await error_of(one.unary("Echo")(b"", timeout=WAIT_SECONDS))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stop_ends_what_takes_longer_than_the_grace() -> None:
    async with served() as one:
        call = asyncio.ensure_future(one.unary("Hang")(b"", timeout=WAIT_SECONDS))
        await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)
        await asyncio.wait_for(one.server.stop(0.05), WAIT_SECONDS)
        assert await one.heard_of_its_end() == "cancelled"
        assert (await error_of(call)).code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_a_stop_waits_for_methods_that_are_still_at_their_end_when_their_calls_are_over() -> None:
    cleaned_up = list[str]()

    async def clean_up_slowly(request: bytes, _: ServerCall) -> bytes:
        try:
            await asyncio.sleep(WAIT_SECONDS)
        finally:
            await asyncio.sleep(0.2)
            cleaned_up.append("done")
        return request

    async with served() as one:
        one.server.add_methods("test.Slow", {"CleanUp": Method(clean_up_slowly, False, same, same)})
        call = one.channel.unary_unary("/test.Slow/CleanUp", same, same)(b"", timeout=WAIT_SECONDS)
        hanging = asyncio.ensure_future(one.unary("Hang")(b"", timeout=WAIT_SECONDS))
        # Called after it: both are under way.
        await asyncio.wait_for(one.hanging.get(), WAIT_SECONDS)
        await asyncio.wait_for(one.server.stop(0), WAIT_SECONDS)
        assert cleaned_up == ["done"]
        for ended in (call, hanging):
            assert (await error_of(ended)).code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_an_address_that_is_taken_is_named_and_a_server_that_never_served_stops() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = CoreServer((("grpc.so_reuseport", 0),), lambda: 0.0)
        with pytest.raises(OSError, match=address):
            server.listen(address)
        await server.stop(0)
