"""gRPC's core as grpcio binds it: the one place that knows of it.

`grpc._cython.cygrpc` is what grpcio builds its own servers on. It has been the same for years and promises nothing:
a new version of grpcio is taken in by running the tests.
"""

from typing import Any

import grpc
from grpc._cython import cygrpc as _cygrpc  # type: ignore[attr-defined]

cygrpc: Any = _cygrpc


def core_credentials(credentials: grpc.ServerCredentials | None) -> tuple[Any, ...]:
    """What the core takes after an address; nothing where it listens in plain text."""
    return () if credentials is None else (credentials._credentials,)  # type: ignore[attr-defined] # noqa: SLF001
