"""Builders: values with defaults, of which a test names only what it is about."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from sluice_operator import spec
from sluice_operator.load import Load
from sluice_operator.values import Health, Observation, Pod, Report, Rollout

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds/embeddingservices.sluice.dev.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
NOW = 1000.0
WALL_TIME = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """What the API server makes of a value: the CRD's defaults filled in, depth first."""
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name not in value and "default" in field:
                value[name] = copy.deepcopy(field["default"])
            if name in value:
                value[name] = defaulted(value[name], field)
    return value


def resource(name: str = "minilm", *, uid: str = "uid-1", **spec_fields: Any) -> dict[str, Any]:
    """An EmbeddingService as the API server returns it; scaling is Off unless the test says otherwise."""
    wanted = {
        "model": {"uri": "hf://sentence-transformers/all-MiniLM-L6-v2"},
        "scaling": {"mode": "Off"},
        **spec_fields,
    }
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": 1, "resourceVersion": "10"},
        "spec": defaulted(copy.deepcopy(wanted), SCHEMA["properties"]["spec"]),
    }


def service(name: str = "minilm", **spec_fields: Any) -> spec.EmbeddingService:
    """The same, parsed."""
    return spec.parse(resource(name, **spec_fields))


def health_document(
    phase: str = "serving",
    *,
    reason: str | None = None,
    step: int | None = None,
    steps: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A /health document that keeps the contract."""
    serves = phase == "serving"
    document = {
        "status": "healthy", "accepting_requests": serves, "queued_tokens": 0,
        "service_rate_tokens_per_sec": 12000.0 if serves else None,
        "estimated_drain_time_ms": 0.0 if serves else None, "p95_server_side_latency_ms": None,
        "gpu_queue_depth": 0, "embedding_dimension": 384 if serves else None, "uptime_seconds": 5.0,
        "phase": {"name": phase, "reason": reason, "step": step, "steps": steps},
        "busy_fraction": 0.0, "offered_tokens_total": 0, "admitted_tokens_total": 0, "rejected_tokens_total": 0,
        "expired_tokens_total": 0, "computed_tokens_total": 0, "padded_tokens_total": 0, "last_forward_age_ms": None,
        "boot_id": "boot-1", "observed_at": "2026-03-01T12:00:00Z", "version": "0.1.0",
        "model": {"uri": "/models/m", "revision": "abc", "fingerprint": "f1" if serves else None, "max_input_tokens": 256},
    }  # fmt: skip
    return {**document, **fields}


def health(phase: str = "serving", **fields: Any) -> Health:
    """What a pod said."""
    serves = phase == "serving"
    said = Health(
        boot_id="boot-1", phase=phase, phase_reason=None, phase_step=None, phase_steps=None, is_accepting=serves,
        status="healthy", queued_tokens=0, service_rate=12_000.0 if serves else None,
        drain_milliseconds=0.0 if serves else None, busy_fraction=0.8, offered_tokens_total=0,
        dimension=384 if serves else None, model_revision="abc", model_fingerprint="f1" if serves else None,
    )  # fmt: skip
    return replace(said, **fields)


def pod(name: str = "minilm-a", *, says: Health | None = None, **fields: Any) -> Pod:
    """A ready pod of the current spec with an open gate; `says` is its fresh answer."""
    seen = Pod(
        name=name, uid=f"uid-{name}", ip="10.0.0.1", http_port=8001, is_running=True, is_being_deleted=False,
        is_ready=True, containers_ready=True, template_hash="current", has_gate=True, gate_is_open=True, trouble=None,
        gate_reason="Serving", report=None if says is None else Report(says, received_at=NOW),
    )  # fmt: skip
    return replace(seen, **fields)


def starting_pod(name: str = "minilm-a", **fields: Any) -> Pod:
    """A pod that is not ready and whose gate was never opened."""
    waits = {"is_ready": False, "containers_ready": False, "gate_is_open": None, "gate_reason": None}
    return pod(name, **{**waits, **fields})


def gated_pod(name: str = "minilm-a", **fields: Any) -> Pod:
    """A pod that could serve and was taken out of traffic."""
    return pod(name, **{"is_ready": False, "gate_is_open": False, "gate_reason": "Overloaded", **fields})


def rollout(replicas: int = 1, **fields: Any) -> Rollout:
    """A Deployment that is what it should be."""
    seen = Rollout(
        is_current=True, template_hash="current", requested_replicas=replicas, replicas=replicas, updated_replicas=replicas,
        ready_replicas=replicas, trouble=None,
    )  # fmt: skip
    return replace(seen, **fields)


def observation(*pods: Pod, **fields: Any) -> Observation:
    """Pods under a Deployment of their number."""
    seen = Observation(pods=pods, rollout=rollout(len(pods)), status={}, now=NOW, wall_time=WALL_TIME)
    return replace(seen, **fields)


def load(**fields: Any) -> Load:
    """An idle fleet of one measured pod."""
    idle = Load(
        offered_short=0.0, offered_long=0.0, capacity=12_000.0, queued_tokens=0, fresh_pods=1, asked_pods=1
    )  # fmt: skip
    return replace(idle, **fields)
