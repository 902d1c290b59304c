"""Sends malformed requests all at once, good neighbours among them, and reads every answer."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import grpc
import numpy as np
from gpu_inference import inference_pb2 as gi
from sluice.v1 import embeddings_pb2 as pb

from tests.server.malformed.http import PATH, HttpRequest
from tests.server.malformed.verdicts import Outcome
from tests.server.malformed.victim import Victim
from tests.server.malformed.wire import Wire

INFER = "/gpu_inference.InferenceService/Infer"
EMBED = "/sluice.v1.Embeddings/Embed"
EMBED_STREAM = "/sluice.v1.Embeddings/EmbedStream"
WITHIN_SECONDS = 60
_DTYPES = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2", pb.DATA_TYPE_INT8: "i1"}
NEIGHBOURS = ("How do I return a pair of shoes?", "The cat sat on the mat.", "x")


class Attacker:
    """One client of each port.

    Args:
        victim: Whom to ask.
        expected: float32 (3, 384): the neighbours' right embeddings.
        ids: The neighbours' token ids.
    """

    def __init__(self, victim: Victim, expected: Any, ids: Sequence[Sequence[int]]) -> None:
        self._victim = victim
        self._expected = expected
        self._ids = ids

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._victim.grpc_port}")
        timeout = aiohttp.ClientTimeout(total=WITHIN_SECONDS)
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self._victim.http_port}", timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._channel.close()

    async def unary(self, method: str, data: bytes) -> Outcome:
        """The bytes as they are, by a call of that method."""
        try:
            answer = await self._channel.unary_unary(method)(data, timeout=WITHIN_SECONDS)
        except grpc.aio.AioRpcError as error:
            return Outcome(error.code().name, error.details() or "")
        return _of_infer(answer) if method == INFER else _of_embed(pb.EmbedResponse.FromString(answer))

    async def stream(self, messages: Sequence[bytes]) -> tuple[list[tuple[str, Outcome]], Outcome]:
        """The answers by id, and how the stream ended."""

        async def requests() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        answers = []
        try:
            async for data in self._channel.stream_stream(EMBED_STREAM)(requests(), timeout=WITHIN_SECONDS):
                answer = pb.EmbedStreamResponse.FromString(data)
                answers.append((answer.request_id, _of_stream(answer)))
        except grpc.aio.AioRpcError as error:
            return answers, Outcome(error.code().name, error.details() or "")
        return answers, Outcome("OK")

    async def http(self, request: HttpRequest) -> Outcome:
        """One request of the session; every refusal is OpenAI's error object."""
        headers = {"Content-Type": "application/json", **request.headers}
        async with self._session.request(
            request.method, request.path, data=io.BytesIO(request.body), headers=headers
        ) as response:
            if response.status != 200:
                return Outcome(str(response.status), (await response.json())["error"]["message"])
            return _of_openai(await response.json())

    async def wire(self, wire: Wire) -> int | None:
        """The status that answers, or None; a half-written request is then ended."""
        port = self._victim.http_port if wire.port == "http" else self._victim.grpc_port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(wire.data)
            await writer.drain()
            if wire.leave:
                return None
            if None in wire.codes:
                writer.write_eof()
            async with asyncio.timeout(WITHIN_SECONDS):
                answer = await reader.read(1 << 16)
        except ConnectionError:
            return None
        finally:
            writer.close()
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1") else None

    async def neighbours(self) -> None:
        """Three good requests, one of each API: each gets its own right embedding."""
        rows = await asyncio.gather(self._good_text(0), self._good_ids(1), self._good_http(2))
        assert np.abs(np.stack(rows) - self._expected).max() <= 1e-5

    async def _good_text(self, place: int) -> Any:
        request = pb.EmbedRequest(texts=pb.Texts(values=[NEIGHBOURS[place]])).SerializeToString()
        answer = await self._channel.unary_unary(EMBED)(request, timeout=WITHIN_SECONDS)
        return np.frombuffer(pb.EmbedResponse.FromString(answer).embeddings.data, "<f4")

    async def _good_ids(self, place: int) -> Any:
        ids = np.array(self._ids[place], "<i4")
        request = gi.InferRequest(
            input_ids_bytes=ids.tobytes(),
            attention_mask_bytes=np.ones_like(ids).tobytes(),
            num_items=1,
            seq_len=ids.size,
        )
        answer = await self._channel.unary_unary(INFER)(request.SerializeToString(), timeout=WITHIN_SECONDS)
        return np.frombuffer(gi.InferResponse.FromString(answer).embeddings_bytes, "<f4")

    async def _good_http(self, place: int) -> Any:
        async with self._session.post(PATH, json={"input": NEIGHBOURS[place]}) as response:
            assert response.status == 200, await response.text()
            return np.array((await response.json())["data"][0]["embedding"], np.float32)


def _of_infer(answer: bytes) -> Outcome:
    response = gi.InferResponse.FromString(answer)
    return _answered(np.frombuffer(response.embeddings_bytes, "<f4").reshape(-1, response.embedding_dim))


def _of_embed(response: pb.EmbedResponse) -> Outcome:
    tensor = response.embeddings
    rows = np.frombuffer(tensor.data, _DTYPES[tensor.dtype]).reshape(tuple(tensor.shape))
    return _answered(rows / 127 if tensor.dtype == pb.DATA_TYPE_INT8 else rows)


def _of_stream(answer: pb.EmbedStreamResponse) -> Outcome:
    if answer.WhichOneof("outcome") == "response":
        return _of_embed(answer.response)
    (code,) = [one for one in grpc.StatusCode if one.value[0] == answer.error.code]
    return Outcome(code.name, answer.error.message)


def _of_openai(body: Any) -> Outcome:
    rows = [one["embedding"] for one in body["data"]]
    if isinstance(rows[0], str):
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return _answered(np.array(rows))


def _answered(rows: Any) -> Outcome:
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
    return Outcome("OK", "", rows.shape, bool(np.abs(lengths - 1).max() < 0.02))
