"""The load generator's own gRPC client, against gRPC's own server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from bench.callers import GrpcCaller, Reply, Request

_METHOD = "/bench.Test/Call"
_PATIENT = 30.0


class Handler(grpc.GenericRpcHandler):
    """Does what the message says."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.left = asyncio.Event()
        self.came = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return grpc.unary_unary_rpc_method_handler(self.call) if details.method == _METHOD else None

    async def call(self, message: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        self.sizes.append(len(message))
        if message == b"refuse":
            trailers = (("grpc-retry-pushback-ms", "130"), ("grpc-status-details-bin", bytes(range(200))))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", trailers)
        if message == b"hang":
            self.came.set()
            try:
                await asyncio.sleep(_PATIENT)
            finally:
                self.left.set()
        context.set_trailing_metadata(
            (("sluice-drain-ms", "12.5"), ("sluice-queue-ms", "3.0"), ("sluice-compute-ms", "4.5"))
        )
        return message


@asynccontextmanager
async def asked(port: int = 0) -> AsyncIterator[tuple[GrpcCaller, Handler, grpc.aio.Server, int]]:
    server, handler = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)]), Handler()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    caller = GrpcCaller(f"127.0.0.1:{port}", _METHOD)
    try:
        yield caller, handler, server, port
    finally:
        await caller.close()
        await server.stop(None)


async def ask(caller: GrpcCaller, *messages: bytes, place: int = 0, **how: Any) -> Reply:
    return await asyncio.wait_for(
        caller.ask(Request(messages, 1), place, **{"timeout_seconds": _PATIENT, **how}), _PATIENT
    )


async def test_an_answer_is_read_from_its_trailers() -> None:
    async with asked() as (caller, handler, _, _):
        reply = await ask(caller, b"hello")
        assert (reply.code, reply.drain_ms, reply.server_ms, reply.pushback_ms) == ("OK", 12.5, 7.5, None)
        assert handler.sizes == [5]


async def test_a_refusal_says_when_to_come_back() -> None:
    async with asked() as (caller, _, _, _):
        reply = await ask(caller, b"refuse")
        assert (reply.code, reply.drain_ms, reply.server_ms, reply.pushback_ms) == (
            "RESOURCE_EXHAUSTED",
            None,
            None,
            130,
        )


async def test_the_second_call_of_a_connection_says_as_much_as_the_first() -> None:
    async with asked() as (caller, _, _, _):
        assert [(await ask(caller, b"hello")).code for _ in range(3)] == ["OK"] * 3


async def test_a_method_that_the_server_does_not_know_is_an_error() -> None:
    async with asked() as (_, _, _, port):
        stranger = GrpcCaller(f"127.0.0.1:{port}", "/bench.Test/Other")
        assert (await ask(stranger, b"hello")).code == "UNIMPLEMENTED"
        await stranger.close()


async def test_many_calls_at_once_share_the_connections_and_each_gets_its_own_answer() -> None:
    async with asked() as (caller, _, _, _):
        messages = [b"refuse" if place % 3 == 0 else b"hello" for place in range(300)]
        replies = await asyncio.gather(*(ask(caller, one, place=place) for place, one in enumerate(messages)))
        expected = ["RESOURCE_EXHAUSTED" if one == b"refuse" else "OK" for one in messages]
        assert [reply.code for reply in replies] == expected


async def test_messages_larger_than_the_servers_windows_arrive_whole_and_come_back() -> None:
    async with asked() as (caller, handler, _, _):
        large = bytes(3_000_000)
        replies = await asyncio.gather(*(ask(caller, large) for _ in range(4)))
        assert [reply.code for reply in replies] == ["OK"] * 4
        assert handler.sizes == [len(large)] * 4


async def test_of_several_messages_the_one_that_failed_counts() -> None:
    async with asked() as (caller, _, _, _):
        assert (await ask(caller, b"hello", b"refuse")).code == "RESOURCE_EXHAUSTED"


async def test_a_caller_whose_time_is_up_says_so_and_the_server_hears_it() -> None:
    async with asked() as (caller, handler, _, _):
        assert (await ask(caller, b"hang", timeout_seconds=0.2)).code == "DEADLINE_EXCEEDED"
        await asyncio.wait_for(handler.left.wait(), _PATIENT)


async def leave_one_after_the_other() -> list[str]:
    async with asked() as (caller, _, _, _):
        calls = (ask(caller, b"hang", place=place, leave_after_seconds=0.1 + place / 1999) for place in range(200))
        return [reply.code for reply in await asyncio.gather(*calls)]


def test_many_callers_that_leave_all_say_so_on_the_benchs_own_loop() -> None:
    assert uvloop.run(leave_one_after_the_other()) == ["CANCELLED"] * 200


async def test_a_caller_of_several_messages_leaves_all_of_them() -> None:
    async with asked() as (caller, _, _, _):
        assert (await ask(caller, b"hang", b"hang", timeout_seconds=0.1)).code == "DEADLINE_EXCEEDED"


async def test_a_caller_that_leaves_says_so_and_the_server_hears_it() -> None:
    async with asked() as (caller, handler, _, _):
        assert (await ask(caller, b"hang", leave_after_seconds=0.2)).code == "CANCELLED"
        await asyncio.wait_for(handler.left.wait(), _PATIENT)


async def test_a_server_that_goes_away_is_unavailable_and_found_again_when_it_is_back() -> None:
    async with asked() as (caller, handler, server, port):
        waiting = asyncio.create_task(ask(caller, b"hang"))
        await asyncio.wait_for(handler.came.wait(), _PATIENT)
        await server.stop(None)
        assert (await waiting).code in ("UNAVAILABLE", "CANCELLED")
        async with asked(port):
            assert (await ask(caller, b"hello")).code == "OK"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with asked() as (_, _, server, port):
        await server.stop(None)
        stranger = GrpcCaller(f"127.0.0.1:{port}", _METHOD)
        assert (await ask(stranger, b"hello")).code == "UNAVAILABLE"


async def test_whoever_is_cancelled_from_outside_is_not_told_a_result() -> None:
    async with asked() as (caller, handler, _, _):
        waiting = asyncio.create_task(ask(caller, b"hang"))
        await asyncio.wait_for(handler.came.wait(), _PATIENT)
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
