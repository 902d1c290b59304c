"""sluice.v1.Embeddings: texts or ragged ids in, one contiguous tensor out; unary and streamed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from sluice_server import __version__
from sluice_server.errors import InvalidRequestError, SluiceError
from sluice_server.observability import request_ids
from sluice_server.observability import scope as scopes
from sluice_server.observability.observer import RequestObserver
from sluice_server.postprocess import OutputDtype
from sluice_server.requests import Priority, Terms, TokenRows
from sluice_server.rpc import status
from sluice_server.rpc.calls import Context, deadline, set_trailers, terms
from sluice_server.rpc.observation import message_of_stream
from sluice_server.serving import Embedded, EmbeddingService, EmbedOptions
from sluice_server.tokenizer import Truncation

logger = logging.getLogger(__name__)

Meaning = TypeVar("Meaning")

_TRUNCATIONS: dict[int, Truncation] = {
    pb.TRUNCATE_UNSPECIFIED: Truncation.END,
    pb.TRUNCATE_NONE: Truncation.NONE,
    pb.TRUNCATE_END: Truncation.END,
    pb.TRUNCATE_START: Truncation.START,
}
_DTYPES: dict[int, tuple[OutputDtype, pb.DataType]] = {
    pb.DATA_TYPE_UNSPECIFIED: ("float32", pb.DATA_TYPE_FLOAT32),
    pb.DATA_TYPE_FLOAT32: ("float32", pb.DATA_TYPE_FLOAT32),
    pb.DATA_TYPE_FLOAT16: ("float16", pb.DATA_TYPE_FLOAT16),
    pb.DATA_TYPE_INT8: ("int8", pb.DATA_TYPE_INT8),
}
_PRIORITIES: dict[int, Priority] = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BATCH: Priority.BATCH,
}
_INT32 = np.dtype("<i4")
# Requests of one stream under way at once; the next is read only when one of them is answered.
_STREAM_WINDOW = 32


class EmbeddingsServicer(embeddings_pb2_grpc.EmbeddingsServicer):
    """Sluice's own API.

    Args:
        service: Computes the embeddings.
        observer: Told of every request of a stream.
    """

    def __init__(self, service: EmbeddingService, observer: RequestObserver | None) -> None:
        self._service = service
        self._observer = observer

    def Embed(self, request: pb.EmbedRequest, context: Context) -> Awaitable[pb.EmbedResponse]:
        """Embeds every input of one request."""
        return _answered(request, self._embed(request, terms(context, _priority(request))), context)

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedRequest], context: Context
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Answers each request as it is done; a refused request fails alone, and the stream goes on."""
        stream = _Stream(deadline(context))
        reader = asyncio.create_task(self._read_stream(requests, stream))
        try:
            while (answer := await stream.answers.get()) is not None:
                yield answer
                stream.window.release()
            await reader
        finally:
            reader.cancel()

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:  # noqa: ARG002
        """What is served and what a request may hold; zeros until the model is loaded."""
        engine, limits = self._service.engine, self._service.limits
        info = engine.info
        response = pb.GetInfoResponse(
            version=__version__,
            model_fingerprint=engine.fingerprint or "",
            max_inputs_per_request=limits.max_inputs,
            max_tokens_per_request=limits.max_tokens,
        )
        if info is not None:
            response.model_uri = info.uri
            response.model_revision = info.revision or ""
            response.embedding_dimension = info.dimension
            response.max_input_tokens = info.max_input_tokens
            response.dtype, response.device, response.pooling = info.dtype, info.device, info.pooling
            response.prompt_names.extend(sorted(info.prompts))
            if info.default_prompt_name is not None:
                response.default_prompt_name = info.default_prompt_name
        return response

    def _embed(self, request: pb.EmbedRequest, asked: Terms) -> Awaitable[Embedded]:
        """Refuses at once what can be refused at once."""
        options = _options(request, asked)
        given = request.WhichOneof("input")
        if given == "texts":
            return self._service.embed_texts(request.texts.values, options)
        if given == "token_ids":
            if options.prompt_name:
                raise InvalidRequestError(f"prompt_name={options.prompt_name!r} goes before texts; expected none here")
            return self._service.embed_ids(decode_ids(request.token_ids), options)
        raise InvalidRequestError("the request has no input; expected texts or token_ids")

    async def _read_stream(self, requests: AsyncIterator[pb.EmbedRequest], stream: "_Stream") -> None:
        """Starts a task per request, at most a window of them; puts None behind the last answer.

        Raises:
            InvalidRequestError: Bytes came that are no request; what came before them is answered first.
        """
        unreadable: InvalidRequestError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async for request in requests:
                        await stream.window.acquire()
                        group.create_task(self._answer_one(request, stream))
                except InvalidRequestError as error:
                    unreadable = error
        finally:
            stream.answers.put_nowait(None)
        if unreadable is not None:
            raise unreadable

    async def _answer_one(self, request: pb.EmbedRequest, stream: "_Stream") -> None:
        with message_of_stream(self._observer, request.request_id) as outcome:
            try:
                with stream.under_way(request.request_id):
                    # Of the call's terms a message has the deadline only: it is asked for the first time, as it comes.
                    asked = Terms(_priority(request), stream.deadline)
                    response = _response(request, await self._embed(request, asked))
                    answer = pb.EmbedStreamResponse(request_id=request.request_id, response=response)
            except SluiceError as error:
                outcome.code, answer = status.grpc_code(error).name, _stream_error(request, error)
            except Exception:
                logger.exception("a request of a stream failed in the server's own code")
                ours = SluiceError("the server failed on this request; its log has the cause")
                outcome.code, answer = status.grpc_code(ours).name, _stream_error(request, ours)
        stream.answers.put_nowait(answer)


class _Stream:
    """One EmbedStream call: at most a window of requests under way, each told apart by its id."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.window = asyncio.Semaphore(_STREAM_WINDOW)
        # Holds a window of answers and the end: nothing ever waits to be put.
        self.answers: asyncio.Queue[pb.EmbedStreamResponse | None] = asyncio.Queue(maxsize=_STREAM_WINDOW + 1)
        self._ids: set[str] = set()

    @contextmanager
    def under_way(self, request_id: str) -> Iterator[None]:
        """While the request of this id is computed.

        Raises:
            InvalidRequestError: The id is empty, or another request has it: nobody could tell the answers apart.
        """
        if not request_id:
            raise InvalidRequestError(
                "request_id is empty; expected one that tells its answer from the stream's others"
            )
        if request_id in self._ids:
            raise InvalidRequestError(f"request_id={request_id!r} is under way on this stream; expected another one")
        self._ids.add(request_id)
        try:
            yield
        finally:
            self._ids.discard(request_id)


def decode_ids(token_ids: pb.TokenIds) -> TokenRows:
    """The ragged rows of a request, without a copy.

    Raises:
        InvalidRequestError: Bytes that are not whole int32s.
    """
    return TokenRows(_int32s("ids", token_ids.ids), _int32s("lengths", token_ids.lengths))


def _int32s(name: str, data: bytes) -> NDArray[np.int32]:
    if len(data) % 4 or not data:
        raise InvalidRequestError(f"token_ids.{name} holds {len(data)} bytes; expected int32s, at least one")
    return np.frombuffer(data, dtype=_INT32)


def _options(request: pb.EmbedRequest, asked: Terms) -> EmbedOptions:
    return EmbedOptions(
        prompt_name=request.prompt_name if request.HasField("prompt_name") else None,
        truncate=_known("truncate", request.truncate, _TRUNCATIONS),
        dimensions=request.dimensions or None,
        normalize=request.normalize if request.HasField("normalize") else True,
        dtype=_known("output_dtype", request.output_dtype, _DTYPES)[0],
        terms=asked,
    )


def _priority(request: pb.EmbedRequest) -> Priority:
    return _known("priority", request.priority, _PRIORITIES)


def _known(name: str, value: int, meanings: Mapping[int, Meaning]) -> Meaning:
    meaning = meanings.get(value)
    if meaning is None:
        raise InvalidRequestError(f"{name}={value}; expected one of {', '.join(map(str, sorted(meanings)))}")
    return meaning


async def _answered(request: pb.EmbedRequest, computing: Awaitable[Embedded], context: Context) -> pb.EmbedResponse:
    embedded = await computing
    set_trailers(context, embedded)
    return _response(request, embedded)


def _response(request: pb.EmbedRequest, embedded: Embedded) -> pb.EmbedResponse:
    # Filled in where they stand: parts made by themselves and put in took twice as long.
    response = pb.EmbedResponse(
        request_id=request.request_id or scopes.request_id() or request_ids.new(),
        tokens_used=embedded.tokens_used,
        truncated_inputs=embedded.truncated,
    )
    tensor, timings = response.embeddings, response.timings
    tensor.data = embedded.embeddings.tobytes()
    tensor.shape.extend(embedded.embeddings.shape)
    tensor.dtype = _DTYPES[request.output_dtype][1]
    timings.tokenize_ms = embedded.tokenize_ms
    timings.queue_ms = embedded.queue_ms
    timings.compute_ms = embedded.compute_ms
    timings.total_ms = embedded.total_ms
    return response


def _stream_error(request: pb.EmbedRequest, error: SluiceError) -> pb.EmbedStreamResponse:
    code = status.grpc_code(error).value[0]
    failure = pb.StreamError(code=code, message=status.message(error), retry_after_ms=status.retry_after_ms(error))
    return pb.EmbedStreamResponse(request_id=request.request_id, error=failure)
