"""The environment that a server pod is given: with /health, all that operator and server share.

Pure. The server's settings read exactly these names; lists are comma-separated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.spec import ModelSpec, ServerSpec, ServiceSpec

MODELS_PATH = "/models"
"""Where the claim of a pvc:// model is mounted, read-only."""
CACHE_PATH = "/var/cache/sluice"
"""A writable emptyDir: downloaded models and compiled kernels."""
GRPC_PORT = 50051
HTTP_PORT = 8001
PROPAGATION_SECONDS = 5
"""How long a stopping pod still accepts work, while clients and kube-proxy learn that it leaves."""


def drain_seconds(server: ServerSpec) -> int:
    """How long a stopping pod may take for admitted work: twice what it admits, and 5 s at least."""
    throughput = server.backpressure.throughput
    if not throughput.enabled:
        return 60
    return max(5, math.ceil(2 * throughput.max_drain_milliseconds / 1000))


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim that a model's uri names, if it names one."""
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme == "pvc" else None


def model_path(uri: str) -> str:
    """The model's uri as the server understands it: pvc://claim/path is a path below `MODELS_PATH`."""
    if claim_of(uri) is None:
        return uri
    path = urlsplit(uri).path.strip("/")
    return f"{MODELS_PATH}/{path}" if path else MODELS_PATH


def server_environment(spec: ServiceSpec) -> list[dict[str, Any]]:
    """The container's env: what the spec says, then what the user adds."""
    fixed = {
        **_model(spec.model),
        **_server(spec.server),
        "MODEL_CACHE_DIR": f"{CACHE_PATH}/models",
        "HF_HOME": f"{CACHE_PATH}/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_PATH}/inductor",
        "GRPC_PORT": str(GRPC_PORT),
        "HTTP_HEALTH_PORT": str(HTTP_PORT),
        "SHUTDOWN_PROPAGATION_SECONDS": str(PROPAGATION_SECONDS),
        "SHUTDOWN_DRAIN_SECONDS": str(drain_seconds(spec.server)),
    }
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in fixed.items()]
    secret = spec.model.credentials_secret_ref
    if secret is not None:
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        variables.append({"name": "HF_TOKEN", "valueFrom": reference})
    return [*variables, *spec.env]


def _model(model: ModelSpec) -> dict[str, str]:
    optional = {
        "MODEL_REVISION": model.revision,
        "EXCLUDE_TOKENS": _joined(model.exclude_tokens) if model.exclude_tokens else None,
        "MAX_INPUT_TOKENS": None if model.max_input_tokens is None else str(model.max_input_tokens),
    }
    return {
        "MODEL_PATH": model_path(model.uri),
        "DTYPE": model.dtype,
        "QUANTIZATION": model.quantization,
        "POOLING": model.pooling,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _server(server: ServerSpec) -> dict[str, str]:
    throughput, latency = server.backpressure.throughput, server.backpressure.latency
    return {
        "DEVICE": server.device,
        "LAYOUT": server.layout,
        "BUCKETS": _joined(server.buckets),
        "BATCH_SIZES": _joined(server.batch_sizes),
        "MAX_BATCH_SIZE": str(server.batch_sizes[-1]),
        "MAX_TOKENS_PER_BATCH": str(server.max_tokens_per_batch),
        "DEADLINE_WAIT_MS": str(server.deadline_wait_milliseconds),
        "BACKPRESSURE_THROUGHPUT_ENABLED": _boolean(throughput.enabled),
        "BACKPRESSURE_MAX_DRAIN_MS": str(throughput.max_drain_milliseconds),
        "BACKPRESSURE_MAX_QUEUED_TOKENS": str(throughput.max_queued_tokens),
        "BACKPRESSURE_LATENCY_ENABLED": _boolean(latency.enabled),
        "BACKPRESSURE_SOFT_P95_MS": str(latency.soft_p95_milliseconds),
        "BACKPRESSURE_HARD_P95_MS": str(latency.hard_p95_milliseconds),
        "BACKPRESSURE_WINDOW_SECONDS": str(latency.window_seconds),
    }


def _joined(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _boolean(value: bool) -> str:
    return "true" if value else "false"
