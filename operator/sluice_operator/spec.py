"""EmbeddingService as values: what the API server hands over, parsed.

The API server validates and defaults (crds/embeddingservices.sluice.dev.yaml is the only place with
defaults), so a field that has a default there is required here. A resource that does not parse raises
`InvalidResourceError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

Json = Mapping[str, Any]


class InvalidResourceError(ValueError):
    """The EmbeddingService cannot be understood: its CRD is older or newer than this operator."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, protected_namespaces=()
    )


class CredentialsSecretRef(_Part):
    """A Secret of the service's own namespace; `key` names its one key for the hub."""

    name: str
    key: str | None = None


class ObjectStore(_Part):
    """Where the object store of an s3:// model is."""

    endpoint: str | None = None
    region: str | None = None


class EmptyDirCache(_Part):
    """Each pod downloads for itself."""

    size_limit: str | int | None = None


class ClaimCache(_Part):
    """Pods share an existing claim."""

    claim_name: str


class CacheSpec(_Part):
    """Where downloads are kept."""

    empty_dir: EmptyDirCache | None = None
    persistent_volume_claim: ClaimCache | None = None


class ModelSpec(_Part):
    """Which model, and how its vectors are computed."""

    uri: str
    revision: str | None = None
    dtype: str
    quantization: str
    pooling: str
    exclude_tokens: tuple[str, ...] = ()
    max_input_tokens: int | None = None
    fingerprint: str | None = None
    credentials_secret_ref: CredentialsSecretRef | None = None
    s3: ObjectStore | None = None
    cache: CacheSpec


class ThroughputBackpressure(_Part):
    """Refusal of what could not be computed within a time."""

    enabled: bool
    max_drain_milliseconds: int
    max_queued_tokens: int


class LatencyBackpressure(_Part):
    """Refusal while answers take too long."""

    enabled: bool
    soft_p95_milliseconds: Annotated[int, Field(alias="softP95Milliseconds")]
    hard_p95_milliseconds: Annotated[int, Field(alias="hardP95Milliseconds")]
    window_seconds: int


class BackpressureSpec(_Part):
    """When a pod refuses work."""

    throughput: ThroughputBackpressure
    latency: LatencyBackpressure


class ServerSpec(_Part):
    """How every pod computes."""

    image: str | None = None
    image_pull_policy: str
    device: Literal["auto", "cpu", "cuda"]
    layout: str
    buckets: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    max_tokens_per_batch: int
    deadline_wait_milliseconds: int
    backpressure: BackpressureSpec


class ScalingSpec(_Part):
    """Who decides the number of pods."""

    mode: Literal["Internal", "External", "Observe", "Off"]
    min_replicas: int
    max_replicas: int
    target_drain_milliseconds: int
    scale_down_stabilization_seconds: int


class ReadinessSpec(_Part):
    """When a pod receives traffic."""

    mode: Literal["Dynamic", "Startup", "Off"]
    close_above_percent: int
    open_below_percent: int
    min_hold_seconds: int
    max_closed_percent: int


class DisruptionBudgetSpec(_Part):
    """How many pods a drain of nodes may take away at once."""

    mode: Literal["Auto", "Off"]
    max_unavailable: int


class NetworkPolicySpec(_Part):
    """Who may connect to the pods; peers are passed on as they are."""

    enabled: bool
    allowed: Annotated[tuple[dict[str, Any], ...], Field(alias="from")] = ()
    monitoring_from: tuple[dict[str, Any], ...] = ()


def _or_empty(value: Json | None) -> Json:
    return value or {}


class ServiceMonitorSpec(_Part):
    """How Prometheus finds the pods' metrics."""

    enabled: bool
    interval_seconds: int
    labels: Annotated[dict[str, str], BeforeValidator(_or_empty)] = {}


class MonitoringSpec(_Part):
    """How the pods' metrics are collected."""

    service_monitor: ServiceMonitorSpec


class PodMetadata(_Part):
    """Further labels and annotations of the pods."""

    labels: Annotated[dict[str, str], BeforeValidator(_or_empty)] = {}
    annotations: Annotated[dict[str, str], BeforeValidator(_or_empty)] = {}


class ServiceSpec(_Part):
    """The spec of an EmbeddingService. What is passed on to the pods as it is stays plain JSON."""

    model: ModelSpec
    server: ServerSpec
    scaling: ScalingSpec
    readiness: ReadinessSpec
    disruption_budget: DisruptionBudgetSpec
    network_policy: NetworkPolicySpec
    monitoring: MonitoringSpec
    replicas: int | None = None
    resources: dict[str, Any] | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None
    image_pull_secrets: tuple[dict[str, str], ...] = ()
    pod_metadata: PodMetadata = PodMetadata()
    env: tuple[dict[str, Any], ...] = ()

    @property
    def fixed_replicas(self) -> int | None:
        """The number of pods where the operator does not decide it, else None."""
        if self.scaling.mode == "Internal":
            return None
        return self.scaling.min_replicas if self.replicas is None else self.replicas

    @property
    def fewest_replicas(self) -> int:
        """The number of pods that must receive traffic for the service to be as specified."""
        fixed = self.fixed_replicas
        return self.scaling.min_replicas if fixed is None else fixed

    @property
    def most_replicas(self) -> int:
        """The largest number of pods that this spec can lead to."""
        fixed = self.fixed_replicas
        return self.scaling.max_replicas if fixed is None else fixed


class EmbeddingService(_Part):
    """An EmbeddingService's identity and spec."""

    name: str
    namespace: str
    uid: str
    generation: int
    is_being_deleted: bool
    spec: ServiceSpec

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


def parse(resource: Json) -> EmbeddingService:
    """The EmbeddingService out of what the API server returned.

    Raises:
        InvalidResourceError: naming each field that cannot be understood.
    """
    metadata = resource["metadata"]
    try:
        return EmbeddingService(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            is_being_deleted="deletionTimestamp" in metadata,
            spec=ServiceSpec.model_validate(resource.get("spec", {})),
        )
    except ValidationError as error:
        faults = "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidResourceError(f"{metadata['namespace']}/{metadata['name']}: {faults}") from error
