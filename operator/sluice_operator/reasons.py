"""Every condition type, every reason and every event that a person can meet, each with what it means.

The values appear in `kubectl get`, `kubectl describe` and alerts: they are an interface and are not renamed.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of an EmbeddingService."""

    READY = "Ready"
    """The service serves as specified: the current spec is rolled out and enough pods receive traffic."""
    AVAILABLE = "Available"
    """At least one pod receives traffic, whichever version of the spec it runs."""
    PROGRESSING = "Progressing"
    """True: all is rolled out, or a rollout advances. False: something keeps it from advancing."""
    MODEL_LOADED = "ModelLoaded"
    """A pod of the current spec has loaded the model and computed with it. Unknown before there is any pod."""
    SCALING_ACTIVE = "ScalingActive"
    """The number of pods is decided from fresh measurements (Internal), or by whoever was asked to."""
    SATURATED = "Saturated"
    """More pods are overloaded than may be taken out of traffic: all gates are open and pods refuse work."""


class Reason(StrEnum):
    """Why a condition is what it is."""

    # All is well.
    SERVING = "Serving"
    """Enough pods of the current spec receive traffic."""
    ROLLED_OUT = "RolledOut"
    """Every pod runs the current spec."""
    LOADED = "Loaded"
    """The model is loaded and has computed real embeddings."""
    SCALED_TO_ZERO = "ScaledToZero"
    """spec.replicas is 0: nothing runs, as asked for."""

    # It takes its time.
    STARTING = "Starting"
    """Pods are created, scheduled, or pull their image."""
    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    WARMING = "Warming"
    """The model computes its first batches; the gate opens afterwards."""
    ROLLING_OUT = "RollingOut"
    """Pods of the current spec replace those of an earlier one."""
    SCALING = "Scaling"
    """Pods are being added."""
    NO_PODS = "NoPods"
    """No pod exists yet."""
    NOT_ENOUGH_PODS_READY = "NotEnoughPodsReady"
    """Fewer pods receive traffic than the spec asks for, and none of them says why."""
    DRAINING = "Draining"
    """Pods finish their work before they stop."""
    UNREACHABLE = "Unreachable"
    """Pods run, but their /health does not answer the operator."""

    # Something is wrong; a person has to do something.
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    """The server says that it cannot load the model; the message is its own."""
    MODEL_VOLUME_MISSING = "ModelVolumeMissing"
    """The PersistentVolumeClaim of model.uri does not exist or has no volume."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    """A Secret, ConfigMap or key that the pod refers to is missing."""
    UNSCHEDULABLE = "Unschedulable"
    CRASH_LOOPING = "CrashLooping"
    """The server's process ends again and again."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The server's process was killed for using more memory than its limit."""
    PODS_NOT_CREATED = "PodsNotCreated"
    """The API server refuses the pods: a quota, a policy."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    FINGERPRINT_CHANGED = "FingerprintChanged"
    """Pods compute other vectors than the service's, although spec.model is the same; they get no traffic."""
    SERVICE_MONITOR_UNAVAILABLE = "ServiceMonitorUnavailable"
    """The spec asks for a ServiceMonitor, and this cluster has no such API; the service itself is not affected."""
    NAME_CONFLICT = "NameConflict"
    """An object of the same name exists that belongs to someone else; it is left alone."""
    APPLY_FAILED = "ApplyFailed"
    """The API server refuses an object made from the spec; the message is its own."""
    NO_SERVER_IMAGE = "NoServerImage"
    """Neither the spec nor the operator's settings name an image."""

    # Who decides the number of pods, and from what.
    MEASURED = "Measured"
    """From offered load and measured capacity."""
    METRICS_STALE = "MetricsStale"
    """Fewer than half of the pods have answered lately: the number of pods is held."""
    CAPACITY_UNKNOWN = "CapacityUnknown"
    """No pod has been measured yet: the number of pods is held."""
    EXTERNAL_AUTOSCALER = "ExternalAutoscaler"
    """scaling.mode is External."""
    FIXED = "Fixed"
    """scaling.mode is Off."""
    OBSERVING = "Observing"
    """scaling.mode is Observe: the number that Internal would choose is shown, and not followed."""

    # Whether the pods keep up.
    SATURATED = "Saturated"
    """More pods are overloaded than readiness.maxClosedPercent lets be closed, or were until lately."""
    KEEPING_UP = "KeepingUp"
    """No more pods are overloaded than may be closed."""
    NOT_SERVING = "NotServing"
    """No pod serves, so none can be overloaded."""


class GateReason(StrEnum):
    """Why a pod's gate is open or closed: the reason of its condition sluice.dev/accepting."""

    SERVING = "Serving"
    """The pod came up: it has computed and accepts requests."""
    OVERLOADED = "Overloaded"
    """Its queue is too long, or it refuses work, and others have room."""
    RELIEVED = "Relieved"
    """Its queue is short again."""
    TOO_MANY_CLOSED = "TooManyClosed"
    """Fewer pods serve than before, or fewer may be closed: the least pressed come back early."""
    SATURATED = "Saturated"
    """The whole service is overloaded: no pod is kept out of traffic."""
    OTHER_VECTORS = "OtherVectors"
    """The pod computes other vectors than the service's, although spec.model is the same."""
    GATES_OFF = "GatesOff"
    """readiness.mode is Off."""
    SERVICE_DELETED = "ServiceDeleted"
    """The EmbeddingService is gone, and its pods were kept."""


class EventReason(StrEnum):
    """Events on an EmbeddingService, one per transition."""

    BECAME_READY = "Ready"
    NO_LONGER_READY = "NotReady"
    PROBLEM = "Problem"
    """Something is wrong that was not before; the note starts with the condition's reason."""
    SCALED = "Scaled"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_REPLACES = "RolloutReplaces"
    """No node has room for one more pod: old ones go before new ones come, until the rollout is over."""
    MODEL_CHANGED = "ModelChanged"
    """Pods compute other vectors than before, as spec.model asks for."""
    GATE_CLOSED = "GateClosed"
    """An overloaded pod is taken out of traffic; the note says which and with what numbers."""
    GATE_OPENED = "GateOpened"
    """A pod that had been taken out of traffic comes back."""
    SATURATED = "Saturated"
    NO_LONGER_SATURATED = "NotSaturated"
    CHILD_RESTORED = "DriftCorrected"
    """A child object had been changed or deleted by someone else and was put right."""


PROBLEMS = frozenset({
    Reason.MODEL_LOAD_FAILED,
    Reason.MODEL_VOLUME_MISSING,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_CONFIG_ERROR,
    Reason.UNSCHEDULABLE,
    Reason.CRASH_LOOPING,
    Reason.OUT_OF_MEMORY,
    Reason.PODS_NOT_CREATED,
    Reason.PROGRESS_DEADLINE_EXCEEDED,
    Reason.FINGERPRINT_CHANGED,
    Reason.SERVICE_MONITOR_UNAVAILABLE,
    Reason.NAME_CONFLICT,
    Reason.APPLY_FAILED,
    Reason.NO_SERVER_IMAGE,
})  # fmt: skip
"""Reasons that do not go away by waiting alone."""
