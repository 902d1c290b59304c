"""google.rpc.RetryInfo in a status's details, read without the package that holds Google's common protos.

The descriptors live in a pool of their own, so that they never clash with that package where it is installed.
"""

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError

_RETRY_INFO = "google.rpc.RetryInfo"


def _message_class(name: str, number: int, field: str, type_name: str, *, repeated: bool) -> Any:
    """A message of one field; protobuf skips the fields that it does not know."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"sluice_client/{name}.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto", "google/protobuf/duration.proto"],
    )
    file.message_type.add(name=name).field.add(
        name=field,
        number=number,
        type=kind.TYPE_MESSAGE,
        type_name=type_name,
        label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL,
    )
    _POOL.Add(file)
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"google.rpc.{name}"))


_POOL = descriptor_pool.DescriptorPool()
for _file in (any_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR):
    _POOL.AddSerializedFile(_file.serialized_pb)
_Status = _message_class("Status", 3, "details", ".google.protobuf.Any", repeated=True)
_RetryInfo = _message_class("RetryInfo", 1, "retry_delay", ".google.protobuf.Duration", repeated=False)


def retry_delay_seconds(status: bytes) -> float | None:
    """The delay that a serialized google.rpc.Status asks for; None where it holds none that can be read."""
    try:
        for detail in _Status.FromString(status).details:
            if detail.type_url.rpartition("/")[2] == _RETRY_INFO:
                delay = _RetryInfo.FromString(detail.value).retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        pass
    return None
