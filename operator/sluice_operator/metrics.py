"""Prometheus metrics of the operator itself and of the services it looks after."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

_SERVICE = ("namespace", "service")

KUBE_WRITES = Counter(
    "sluice_operator_kube_writes", "Writes to the Kubernetes API, the lease apart.", ("verb", "kind"), registry=REGISTRY
)
KUBE_ERRORS = Counter(
    "sluice_operator_kube_errors", "Failed requests to the Kubernetes API.", ("code",), registry=REGISTRY
)
RECONCILES = Counter("sluice_operator_reconciles", "Rounds of observe, decide, act.", ("outcome",), registry=REGISTRY)
RECONCILE_SECONDS = Histogram(
    "sluice_operator_reconcile_seconds", "Time of one round.", registry=REGISTRY
)  # fmt: skip
TASK_DEATHS = Counter(
    "sluice_operator_task_deaths",
    "Reconcile tasks that ended unexpectedly and were started anew.",
    registry=REGISTRY,
)
POLLS = Counter("sluice_operator_health_polls", "Polls of /health.", ("outcome",), registry=REGISTRY)
POLL_DELAY = Histogram(
    "sluice_operator_poll_delay_seconds",
    "How late the pods of a service were polled, by the poll interval.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    registry=REGISTRY,
)
RESYNC_REPAIRS = Counter(
    "sluice_operator_resync_repairs",
    "Objects that a watch had missed and a list found.",
    ("kind",),
    registry=REGISTRY,
)
WATCH_AGE = Gauge(
    "sluice_operator_watch_age_seconds",
    "Time since a watch last told something, or was found to have missed nothing.",
    ("kind",),
    registry=REGISTRY,
)
LOOP_LAG = Gauge("sluice_operator_loop_lag_seconds", "How late the event loop runs.", registry=REGISTRY)
LEADS = Gauge("sluice_operator_leads", "Whether this instance holds the lease.", registry=REGISTRY)
LEASE_RENEWALS = Counter(
    "sluice_operator_lease_renewals", "Attempts to take or renew the lease.", ("outcome",), registry=REGISTRY
)
WATCH_RESTARTS = Counter(
    "sluice_operator_watch_restarts", "How often all watches were started anew.", registry=REGISTRY
)
ACTS = Gauge("sluice_operator_acts", "Whether this instance acts on services.", registry=REGISTRY)

DESIRED_REPLICAS = Gauge("sluice_desired_replicas", "Pods that should exist.", _SERVICE, registry=REGISTRY)
RECOMMENDED_REPLICAS = Gauge(
    "sluice_recommended_replicas",
    "Pods that scaling.mode Internal asks for, or would ask for in mode External and Observe.",
    _SERVICE,
    registry=REGISTRY,
)
READY_REPLICAS = Gauge("sluice_ready_replicas", "Pods that receive traffic.", _SERVICE, registry=REGISTRY)
DRAIN_SECONDS = Gauge("sluice_drain_seconds", "Longest drain time of any pod.", _SERVICE, registry=REGISTRY)
QUEUED_TOKENS = Gauge("sluice_queued_tokens", "Tokens queued at all pods.", _SERVICE, registry=REGISTRY)
OFFERED_RATE = Gauge(
    "sluice_offered_tokens_per_second",
    "Tokens per second that clients ask for, repetitions excluded.",
    _SERVICE,
    registry=REGISTRY,
)
CLOSED_GATES = Gauge("sluice_closed_gates", "Pods whose readiness gate is closed.", _SERVICE, registry=REGISTRY)
GATES_WAITING = Gauge(
    "sluice_gates_waiting",
    "Gates that should open or close and wait for their turn, as only so many move per second.",
    _SERVICE,
    registry=REGISTRY,
)
SATURATED = Gauge(
    "sluice_saturated", "Whether more pods are overloaded than may be closed.", _SERVICE, registry=REGISTRY
)

_GAUGES = (
    DESIRED_REPLICAS,
    RECOMMENDED_REPLICAS,
    READY_REPLICAS,
    DRAIN_SECONDS,
    QUEUED_TOKENS,
    OFFERED_RATE,
    CLOSED_GATES,
    GATES_WAITING,
    SATURATED,
)


def forget_service(namespace: str, service: str) -> None:
    """Removes the gauges of a service that is gone."""
    for gauge in _GAUGES:
        gauge.remove_by_labels({"namespace": namespace, "service": service})
