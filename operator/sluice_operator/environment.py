"""The environment that a server pod is given: with /health, all that operator and server share.

Pure. The server's settings read exactly these names; lists are comma-separated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.spec import CredentialsSecretRef, ModelSpec, ServerSpec, ServiceSpec

MODELS_PATH = "/models"
"""Where the claim of a pvc:// model is mounted, read-only."""
CACHE_PATH = "/var/cache/sluice"
"""A writable emptyDir: downloaded models and compiled kernels."""
SHARED_CACHE_PATH = "/var/cache/sluice-models"
"""Where the claim of spec.model.cache is mounted, for downloaded models alone."""
HUB_TOKEN_KEY = "HF_TOKEN"  # noqa: S105 - the name of a key, not a token
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


def cache_claim_of(model: ModelSpec) -> str | None:
    """The PersistentVolumeClaim that pods share their downloads in, if there is one."""
    claim = model.cache.persistent_volume_claim
    return None if claim is None else claim.claim_name


def model_path(uri: str) -> str:
    """The model's uri as the server understands it: pvc://claim/path is a path below `MODELS_PATH`."""
    if claim_of(uri) is None:
        return uri
    path = urlsplit(uri).path.strip("/")
    return f"{MODELS_PATH}/{path}" if path else MODELS_PATH


def server_environment(spec: ServiceSpec) -> list[dict[str, Any]]:
    """The container's env: what the spec says, then what the user adds."""
    shares_cache = cache_claim_of(spec.model) is not None
    fixed = {
        **_model(spec.model),
        **_server(spec.server),
        "MODEL_CACHE_DIR": SHARED_CACHE_PATH if shares_cache else f"{CACHE_PATH}/models",
        "HF_HOME": f"{CACHE_PATH}/huggingface",
        # What was compiled is as dear as what was downloaded: a pod that is replaced finds it where the model is kept.
        "TORCHINDUCTOR_CACHE_DIR": f"{SHARED_CACHE_PATH if shares_cache else CACHE_PATH}/inductor",
        "GRPC_PORT": str(GRPC_PORT),
        "HTTP_HEALTH_PORT": str(HTTP_PORT),
        "SHUTDOWN_PROPAGATION_SECONDS": str(PROPAGATION_SECONDS),
        "SHUTDOWN_DRAIN_SECONDS": str(drain_seconds(spec.server)),
    }
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in fixed.items()]
    return [*variables, *_credentials(spec.model), *spec.env]


def _credentials(model: ModelSpec) -> list[dict[str, Any]]:
    """What the download needs, by reference: the operator never reads a Secret."""
    secret = model.credentials_secret_ref
    if secret is None:
        return []
    if urlsplit(model.uri).scheme != "s3":
        return [_from_secret("HF_TOKEN", secret, secret.key or HUB_TOKEN_KEY)]
    return [
        _from_secret("AWS_ACCESS_KEY_ID", secret, "AWS_ACCESS_KEY_ID"),
        _from_secret("AWS_SECRET_ACCESS_KEY", secret, "AWS_SECRET_ACCESS_KEY"),
        _from_secret("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True),
    ]


def _from_secret(variable: str, secret: CredentialsSecretRef, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret.name, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _model(model: ModelSpec) -> dict[str, str]:
    optional = {
        "MODEL_REVISION": model.revision,
        "EXCLUDE_TOKENS": _joined(model.exclude_tokens) if model.exclude_tokens else None,
        "MAX_INPUT_TOKENS": None if model.max_input_tokens is None else str(model.max_input_tokens),
        "AWS_ENDPOINT_URL_S3": None if model.s3 is None else model.s3.endpoint,
        "AWS_REGION": None if model.s3 is None else model.s3.region,
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
