"""gpu_inference.InferenceService: wire-compatible with coral-gpu-inference 0.1.0, strict where it was not."""

import numpy as np
from gpu_inference import inference_pb2 as pb
from gpu_inference import inference_pb2_grpc
from numpy.typing import NDArray

from sluice_server import health
from sluice_server.errors import InvalidRequestError
from sluice_server.requests import TokenRows
from sluice_server.rpc.calls import Context, deadline, ending_with_its_status, set_trailers
from sluice_server.serving import EmbeddingService, EmbedOptions


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Padded ids in, float32 rows of unit length out."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def Infer(self, request: pb.InferRequest, context: Context) -> pb.InferResponse:
        """Embeds every row; the attention mask says which of its positions count."""
        async with ending_with_its_status(context):
            rows = decode(request, max_inputs=self._service.limits.max_inputs)
            options = EmbedOptions(deadline=deadline(context, max_wait_ms=request.max_wait_ms))
            embedded = await self._service.embed_ids(rows, options)
            set_trailers(context, self._service.engine, embedded)
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
        document = health.document(self._service.engine.facts())
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
    """Unpads a request by its mask.

    Raises:
        InvalidRequestError: Sizes that do not fit each other, or a mask that is not of zeros and ones.
    """
    if request.input_ids_bytes or not request.input_ids:
        ids, mask = _from_bytes(request, max_inputs)
    else:
        ids, mask = _from_rows(request, max_inputs)
    _check_bucket(request.bucket_max_len, ids.shape[1])
    if not np.isin(mask, (0, 1)).all():
        wrong = mask[~np.isin(mask, (0, 1))][0]
        raise InvalidRequestError(f"attention_mask holds {wrong}; expected 0 or 1")
    kept = mask.astype(bool)
    return TokenRows(ids[kept], kept.sum(axis=1, dtype=np.int32))


def _from_bytes(request: pb.InferRequest, max_inputs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
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
    shape = (items, length)
    return (
        np.frombuffer(request.input_ids_bytes, dtype="<i4").reshape(shape),
        np.frombuffer(request.attention_mask_bytes, dtype="<i4").reshape(shape),
    )


def _from_rows(request: pb.InferRequest, max_inputs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    items = len(request.input_ids)
    if items > max_inputs:
        raise InvalidRequestError(f"{items} rows of input_ids; expected 1 to {max_inputs}")
    if len(request.attention_mask) != items:
        raise InvalidRequestError(f"{len(request.attention_mask)} rows of attention_mask for {items} of input_ids")
    length = max(len(row.values) for row in request.input_ids)
    ids = np.zeros((items, length), dtype=np.int32)
    mask = np.zeros((items, length), dtype=np.int32)
    for place, (row, marks) in enumerate(zip(request.input_ids, request.attention_mask, strict=True)):
        if len(row.values) != len(marks.values):
            raise InvalidRequestError(
                f"row {place} has {len(row.values)} input_ids and {len(marks.values)} mask values; expected as many"
            )
        ids[place, : len(row.values)] = row.values
        mask[place, : len(marks.values)] = marks.values
    if length == 0:
        raise InvalidRequestError("every row of input_ids is empty; expected at least 1 token")
    return ids, mask


def _check_bucket(bucket_max_len: int, length: int) -> None:
    """The server buckets by true length; a caller's own bucket only has to hold its rows."""
    if bucket_max_len < 0 or 0 < bucket_max_len < length:
        raise InvalidRequestError(f"bucket_max_len={bucket_max_len}; expected 0, or at least the row length {length}")
