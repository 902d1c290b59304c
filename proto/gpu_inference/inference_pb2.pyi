from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPLETED: _ClassVar[Status]
    ERROR: _ClassVar[Status]
COMPLETED: Status
ERROR: Status

class InferRequest(_message.Message):
    __slots__ = ("request_id", "input_ids", "attention_mask", "bucket_max_len", "max_wait_ms", "input_ids_bytes", "attention_mask_bytes", "num_items", "seq_len")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MASK_FIELD_NUMBER: _ClassVar[int]
    BUCKET_MAX_LEN_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    INPUT_IDS_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MASK_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    SEQ_LEN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    input_ids: _containers.RepeatedCompositeFieldContainer[TensorRow]
    attention_mask: _containers.RepeatedCompositeFieldContainer[TensorRow]
    bucket_max_len: int
    max_wait_ms: int
    input_ids_bytes: bytes
    attention_mask_bytes: bytes
    num_items: int
    seq_len: int
    def __init__(self, request_id: _Optional[str] = ..., input_ids: _Optional[_Iterable[_Union[TensorRow, _Mapping]]] = ..., attention_mask: _Optional[_Iterable[_Union[TensorRow, _Mapping]]] = ..., bucket_max_len: _Optional[int] = ..., max_wait_ms: _Optional[int] = ..., input_ids_bytes: _Optional[bytes] = ..., attention_mask_bytes: _Optional[bytes] = ..., num_items: _Optional[int] = ..., seq_len: _Optional[int] = ...) -> None: ...

class TensorRow(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class EmbeddingRow(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_wait_ms", "encoding_ms", "total_ms")
    QUEUE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_wait_ms: float
    encoding_ms: float
    total_ms: float
    def __init__(self, queue_wait_ms: _Optional[float] = ..., encoding_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("request_id", "status", "embeddings", "timings", "error_code", "error_message", "embeddings_bytes", "embedding_dim")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_BYTES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: Status
    embeddings: _containers.RepeatedCompositeFieldContainer[EmbeddingRow]
    timings: Timings
    error_code: str
    error_message: str
    embeddings_bytes: bytes
    embedding_dim: int
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., embeddings: _Optional[_Iterable[_Union[EmbeddingRow, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., error_code: _Optional[str] = ..., error_message: _Optional[str] = ..., embeddings_bytes: _Optional[bytes] = ..., embedding_dim: _Optional[int] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("status", "accepting_requests", "queued_tokens", "service_rate_tokens_per_sec", "estimated_drain_time_ms", "p95_server_side_latency_ms", "gpu_queue_depth", "uptime_seconds")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_RATE_TOKENS_PER_SEC_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_DRAIN_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    P95_SERVER_SIDE_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    GPU_QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    status: str
    accepting_requests: bool
    queued_tokens: int
    service_rate_tokens_per_sec: float
    estimated_drain_time_ms: float
    p95_server_side_latency_ms: float
    gpu_queue_depth: int
    uptime_seconds: int
    def __init__(self, status: _Optional[str] = ..., accepting_requests: _Optional[bool] = ..., queued_tokens: _Optional[int] = ..., service_rate_tokens_per_sec: _Optional[float] = ..., estimated_drain_time_ms: _Optional[float] = ..., p95_server_side_latency_ms: _Optional[float] = ..., gpu_queue_depth: _Optional[int] = ..., uptime_seconds: _Optional[int] = ...) -> None: ...
