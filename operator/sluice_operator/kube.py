"""The Kubernetes API: the few requests that the operator makes, asynchronous, each within a time-out.

Built on the request machinery of `kubernetes.aio.dynamic` without its discovery: the operator knows its
paths. The typed models stay unloaded, which saves a good part of the operator's memory.
"""

from __future__ import annotations

import asyncio
import math
import os
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from sluice_operator import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]

FIELD_MANAGER = "sluice-operator"

_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_MOST_RETRY_AFTER_SECONDS = 30.0
_PAGE_ITEMS = 200
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the objects of a kind are found."""

    name: str
    prefix: str
    plural: str
    api_version: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("EmbeddingService", "/apis/sluice.dev/v1alpha1", "embeddingservices", "sluice.dev/v1alpha1"),
        Kind("Pod", "/api/v1", "pods", "v1"),
        Kind("Service", "/api/v1", "services", "v1"),
        Kind("Deployment", "/apis/apps/v1", "deployments", "apps/v1"),
        Kind("PodDisruptionBudget", "/apis/policy/v1", "poddisruptionbudgets", "policy/v1"),
        Kind("NetworkPolicy", "/apis/networking.k8s.io/v1", "networkpolicies", "networking.k8s.io/v1"),
        Kind("ServiceMonitor", "/apis/monitoring.coreos.com/v1", "servicemonitors", "monitoring.coreos.com/v1"),
        Kind("Event", "/apis/events.k8s.io/v1", "events", "events.k8s.io/v1"),
        Kind("Lease", "/apis/coordination.k8s.io/v1", "leases", "coordination.k8s.io/v1"),
    )
}


class KubeError(Exception):
    """The API server refused, failed, or could not be reached."""

    def __init__(self, code: int | None, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message if code is None else f"{message} (HTTP {code})")
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        """How long the API server wants to be left alone; 0 where it did not say."""

    @property
    def is_refusal(self) -> bool:
        """Whether asking again for the same would be refused again; a conflict (409) passes by itself."""
        return self.code in {400, 403, 415, 422} or (
            self.code == HTTPStatus.INTERNAL_SERVER_ERROR and "failed to create typed patch object" in self.message
        )


async def load_configuration() -> Configuration:
    """The service account inside a pod, else the kubeconfig (KUBECONFIG or ~/.kube/config).

    Raises:
        kubernetes.aio.config.config_exception.ConfigException: where there is neither.
    """
    configuration = Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


class NotLeadingError(KubeError):
    """A write that this instance may not make, as another may be making it."""

    def __init__(self) -> None:
        super().__init__(None, "this instance does not lead, so it does not write")


class Kube:
    """One connection pool to the API server.

    Writes are made only while `seconds_to_write` is above 0, and given up when it runs out. The Lease is written
    at any time: it is what those seconds come from.
    """

    def __init__(
        self, configuration: Configuration, *, timeout_seconds: float, seconds_to_write: Callable[[], float]
    ) -> None:
        self.api = ApiClient(configuration)
        self.api.user_agent = FIELD_MANAGER
        self._client = DynamicClient(self.api)  # type: ignore[no-untyped-call]
        self._timeout_seconds = timeout_seconds
        self._seconds_to_write = seconds_to_write

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object, or None where there is none."""
        try:
            body = await self._request("get", _path(kind, namespace, name))
        except KubeError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        return body

    async def list(self, kind: str, namespace: str | None, label_selector: str | None = None) -> tuple[list[Json], int]:
        """All objects of a kind in a namespace, or in all, and the revision at which that was so.

        They come in pages and without their managedFields: a thousand pods at once would double the operator's memory.
        """
        # Items of a list carry neither, unlike the same objects from a watch.
        named = {"apiVersion": KINDS[kind].api_version, "kind": kind}
        found: list[Json] = []
        token = None
        while True:
            page = await self._request(
                "get", _path(kind, namespace), label_selector=label_selector, limit=_PAGE_ITEMS, _continue=token
            )
            for item in page["items"]:
                item["metadata"].pop("managedFields", None)
                found.append({**named, **item})
            token = page["metadata"].get("continue")
            if not token:
                return found, int(page["metadata"]["resourceVersion"])

    async def apply(self, manifest: Json) -> Json:
        """Server-side apply: creates the object, or sets the fields that the manifest names."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        return await self._write("apply", kind, "patch", path, manifest, content_type=_APPLY, force_conflicts=True)

    async def apply_status(self, name: str, namespace: str, uid: str, status: Json) -> Json:
        """Sets the whole status of an EmbeddingService; what it no longer names is removed."""
        body = {
            "apiVersion": KINDS["EmbeddingService"].api_version,
            "kind": "EmbeddingService",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "status": status,
        }
        path = _path("EmbeddingService", namespace, name) + "/status"
        return await self._write(
            "apply-status", "EmbeddingService", "patch", path, body, content_type=_APPLY, force_conflicts=True
        )

    async def patch_pod_condition(self, namespace: str, name: str, uid: str, condition: Json) -> Json | None:
        """Sets one condition of a pod and leaves the kubelet's alone; None where that very pod is gone."""
        body = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
        path = _path("Pod", namespace, name) + "/status"
        try:
            return await self._write("patch-status", "Pod", "patch", path, body, content_type=_STRATEGIC)
        except KubeError as error:
            if error.code in {404, 409}:
                return None
            raise

    async def annotate_pod(self, namespace: str, name: str, uid: str, key: str, value: str | None) -> Json | None:
        """Sets one annotation of a pod, or removes it; None where that very pod is gone.

        It goes through the status, which the operator may write anyway: a right to patch pods could do far more.
        """
        body = {"metadata": {"uid": uid, "annotations": {key: value}}}
        path = _path("Pod", namespace, name) + "/status"
        try:
            return await self._write("annotate", "Pod", "patch", path, body, content_type=_MERGE)
        except KubeError as error:
            if error.code in {404, 409}:
                return None
            raise

    async def serves(self, kind: str) -> bool:
        """Whether the API server has objects of this kind."""
        try:
            answer = await self._request("get", KINDS[kind].prefix)
        except KubeError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return False
            raise
        return any(resource["kind"] == kind for resource in answer["resources"])

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Deletes that very object; one that is gone already is as good."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._write("delete", kind, "delete", _path(kind, namespace, name), body)
        except KubeError as error:
            if error.code not in {404, 409}:
                raise

    async def create(self, body: Json) -> Json:
        """Creates an object."""
        kind = body["kind"]
        return await self._write("create", kind, "post", _path(kind, body["metadata"]["namespace"]), body)

    async def write_lease(self, lease: Json) -> Json:
        """Creates a Lease, or replaces the very version of it that the body names.

        Raises:
            KubeError: with 409 where it exists already, or is of another version by now.
        """
        namespace, name = lease["metadata"]["namespace"], lease["metadata"]["name"]
        if "resourceVersion" in lease["metadata"]:
            return await self._request("put", _path("Lease", namespace, name), body=lease)
        return await self._request("post", _path("Lease", namespace), body=lease)

    async def _write(self, verb: str, kind: str, method: str, path: str, body: Json, **options: Any) -> Json:
        left = self._seconds_to_write()
        if left <= 0:
            raise NotLeadingError
        metrics.KUBE_WRITES.labels(verb=verb, kind=kind).inc()
        if method == "patch":
            options["field_manager"] = FIELD_MANAGER
        return await self._request(method, path, body=body, at_most_seconds=left, **options)

    async def _request(self, method: str, path: str, *, at_most_seconds: float = math.inf, **options: Any) -> Json:
        try:
            # Not aiohttp's own time-out: a cancellation in the very moment in which that runs out is lost, and writes
            # of a leader are cancelled in the moment in which their time runs out.
            async with asyncio.timeout(min(self._timeout_seconds, at_most_seconds)):
                response = await self._client.request(
                    method, path, serialize=False, _request_timeout=_NO_TIMEOUT, **options
                )
                answer: Json = await response.json()
        except DynamicApiError as error:
            metrics.KUBE_ERRORS.labels(code=error.status).inc()
            raise KubeError(error.status, _said(error), retry_after_seconds=_retry_after(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.KUBE_ERRORS.labels(code="none").inc()
            raise KubeError(None, f"{method.upper()} {path}: {str(error) or type(error).__name__}") from error
        return answer


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    where = KINDS[kind]
    path = where.prefix if namespace is None else f"{where.prefix}/namespaces/{namespace}"
    path = f"{path}/{where.plural}"
    return path if name is None else f"{path}/{name}"


def _retry_after(error: DynamicApiError) -> float:
    """What a 429 or 503 asks for; dates, which no API server sends, count as nothing said."""
    said = (error.headers or {}).get("Retry-After", "")
    return min(float(said), _MOST_RETRY_AFTER_SECONDS) if said.isdigit() else 0.0


def _said(error: DynamicApiError) -> str:
    """The API server's own sentence, without headers and JSON around it."""
    try:
        return str(error.summary()).strip()  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
