"""gpu_inference.InferenceService: wire-compatible with coral-gpu-inference 0.1.0, strict where it was not."""

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
from gpu_inference import inference_pb2 as pb
from gpu_inference import inference_pb2_grpc
from numpy.typing import NDArray

from sluice_server.errors import InvalidRequestError
from sluice_server.requests import TokenRows
from sluice_server.rpc.calls import Context, set_trailers, terms
from sluice_server.serving import EmbeddingService, EmbedOptions


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Padded ids in, float32 rows of unit length out.

    Args:
        service: Computes them.
    """

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def Infer(self, request: pb.InferRequest, context: Context) -> pb.InferResponse:
        """Embeds every row; the attention mask says which of its positions count."""
        rows = decode(request, max_inputs=self._service.limits.max_inputs)
        asked = terms(context, max_wait_ms=request.max_wait_ms)
        embedded = await self._service.embed_ids(rows, EmbedOptions(terms=asked))
        set_trailers(context, embedded)
        timings = pb.Timings(
            queue_wait_ms=embedded.queue_ms, encoding_ms=embedded.compute_ms, total_ms=embedded.total_ms
        )
        response = pb.InferResponse(
            request_id=request.request_id,
            status=pb.COMPLETED,
            timings=timings,
            embeddings_bytes=embedded.embeddings.tobytes(),
            embedding_dim=embedded.embeddings.shape[1],
        )
        if not request.input_ids_bytes:
            # A caller of the older form reads the older form.
            response.embeddings.extend(pb.EmbeddingRow(values=row) for row in embedded.embeddings)
        return response

    async def HealthCheck(self, request: pb.HealthRequest, context: Context) -> pb.HealthResponse:  # noqa: ARG002
        """The first values of /health; what is not known yet is 0 here, as the message has no null."""
        document = await self._service.engine.health_document()
        return pb.HealthResponse(
            status=document["status"],
            accepting_requests=document["accepting_requests"],
            queued_tokens=document["queued_tokens"],
            service_rate_tokens_per_sec=document["service_rate_tokens_per_sec"] or 0.0,
            estimated_drain_time_ms=document["estimated_drain_time_ms"] or 0.0,
            p95_server_side_latency_ms=document["p95_server_side_latency_ms"] or 0.0,
            gpu_queue_depth=document["gpu_queue_depth"],
            uptime_seconds=int(document["uptime_seconds"]),
        )


def decode(request: pb.InferRequest, *, max_inputs: int) -> TokenRows:
    """Unpads a request by its mask: a position counts where the mask is 1, wherever it stands in its row.

    The bytes are the request where both forms came, as they are for coral-gpu-inference.

    Raises:
        InvalidRequestError: Sizes that do not fit each other, or a mask that is not of zeros and ones.
    """
    if request.input_ids_bytes or not request.input_ids:
        ids, mask, starts = _from_bytes(request, max_inputs)
    else:
        ids, mask, starts = _from_rows(request, max_inputs)
    lowest, highest = int(mask.min()), int(mask.max())
    if lowest < 0 or highest > 1:
        raise InvalidRequestError(f"attention_mask holds {lowest if lowest < 0 else highest}; expected 0 or 1")
    return TokenRows(ids[mask.astype(bool)], np.add.reduceat(mask, starts, dtype=np.int32))


# Ids and mask of all rows one after the other, each int32 (total,); int64 (n,): where each row starts, none empty.
_Rows: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]


def _from_bytes(request: pb.InferRequest, max_inputs: int) -> _Rows:
    items, length = request.num_items, request.seq_len
    if not 1 <= items <= max_inputs:
        raise InvalidRequestError(f"num_items={items}; expected 1 to {max_inputs}")
    if length < 1:
        raise InvalidRequestError(f"seq_len={length}; expected at least 1")
    expected = 4 * items * length
    for name in ("input_ids_bytes", "attention_mask_bytes"):
        size = len(getattr(request, name))
        if size != expected:
            raise InvalidRequestError(
                f"{name} holds {size} bytes; expected {expected}: num_items={items} x seq_len={length} int32"
            )
    _check_bucket(request.bucket_max_len, length)
    return (
        np.frombuffer(request.input_ids_bytes, dtype="<i4"),
        np.frombuffer(request.attention_mask_bytes, dtype="<i4"),
        np.arange(0, items * length, length, dtype=np.int64),
    )


def _from_rows(request: pb.InferRequest, max_inputs: int) -> _Rows:
    """Never padded on the way: rows of very different lengths would fill the memory."""
    items = len(request.input_ids)
    if items > max_inputs:
        raise InvalidRequestError(f"{items} rows of input_ids; expected 1 to {max_inputs}")
    if len(request.attention_mask) != items:
        raise InvalidRequestError(
            f"{len(request.attention_mask)} rows of attention_mask; expected {items}, as of input_ids"
        )
    ids, mask = ([row.values for row in rows] for rows in (request.input_ids, request.attention_mask))
    lengths = [len(values) for values in ids]
    for place, (length, marks) in enumerate(zip(lengths, map(len, mask), strict=True)):
        if length != marks:
            raise InvalidRequestError(f"row {place} has {length} input_ids and {marks} mask values; expected as many")
        if length == 0:
            raise InvalidRequestError(f"row {place} of input_ids is empty; expected at least 1 token")
    for name, value, meant in (("num_items", request.num_items, items), ("seq_len", request.seq_len, max(lengths))):
        if value not in {0, meant}:
            raise InvalidRequestError(f"{name}={value}, but the rows say {meant}; expected 0 or {meant}")
    _check_bucket(request.bucket_max_len, max(lengths))
    ends = np.cumsum(lengths, dtype=np.int64)
    return _joined(ids, int(ends[-1])), _joined(mask, int(ends[-1])), ends - lengths


def _joined(rows: Sequence[Sequence[int]], total: int) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=total)


def _check_bucket(bucket_max_len: int, length: int) -> None:
    """The server buckets by true length; a caller's own bucket only has to hold its rows."""
    if bucket_max_len < 0 or 0 < bucket_max_len < length:
        raise InvalidRequestError(f"bucket_max_len={bucket_max_len}; expected 0, or at least the row length {length}")
