"""The objects that the operator watches, as last seen: by watches, lists, and the answers to writes.

An older version of an object never replaces a newer one, so that a late watch event cannot undo what an
answer to a write already told, and one that is gone does not come back. Objects are kept without their
managedFields, half of their size.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from sluice_operator.pod_template import SERVICE_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Json = dict[str, Any]
ServiceKey = tuple[str, str]
"""Namespace and name of an EmbeddingService."""
_Key = tuple[str, str, str]

SERVICE_KIND = "EmbeddingService"


class Store:
    """Objects by kind, namespace and name; whoever listens hears which service a change concerns."""

    def __init__(self, on_change: Callable[[ServiceKey], None]) -> None:
        self._objects: dict[_Key, Json] = {}
        self._by_service: dict[ServiceKey, set[_Key]] = {}
        self._on_change = on_change
        self._gone: deque[str] = deque(maxlen=4096)

    def put(self, body: Json) -> bool:
        """Takes in a version of an object; False where it is not newer than the one that is known."""
        key, service = _key(body), service_of(body)
        known = self._objects.get(key)
        if (known is not None and not _is_newer(body, known)) or body["metadata"]["uid"] in self._gone:
            return False
        slim = {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}}
        self._objects[key] = slim
        was = service_of(known) if known is not None else None
        if was is not None and was != service:
            self._by_service.get(was, set()).discard(key)
            self._on_change(was)
        if service is not None:
            self._by_service.setdefault(service, set()).add(key)
            self._on_change(service)
        return True

    def remove(self, body: Json) -> None:
        """Forgets an object that is gone, unless another one of its name is there already."""
        key, known = _key(body), self._objects.get(_key(body))
        self._gone.append(body["metadata"]["uid"])
        if known is None or known["metadata"]["uid"] != body["metadata"]["uid"]:
            return
        del self._objects[key]
        service = service_of(known)
        if service is not None:
            keys = self._by_service.get(service, set())
            keys.discard(key)
            if not keys:
                self._by_service.pop(service, None)
            self._on_change(service)

    def service(self, key: ServiceKey) -> Json | None:
        """The EmbeddingService itself."""
        return self._objects.get((SERVICE_KIND, *key))

    def services(self) -> list[ServiceKey]:
        """All EmbeddingServices."""
        return [(namespace, name) for kind, namespace, name in self._objects if kind == SERVICE_KIND]

    def known(self) -> set[ServiceKey]:
        """All EmbeddingServices, and those of which only something that belonged to them is left."""
        return {*self.services(), *(key for key, objects in self._by_service.items() if objects)}

    def owned(self, key: ServiceKey, *kinds: str) -> list[Json]:
        """Objects of these kinds that carry the service's label."""
        return [self._objects[k] for k in self._by_service.get(key, ()) if k[0] in kinds]

    def take_list(self, kind: str, namespace: str | None, bodies: Iterable[Json], revision: int) -> int:
        """Takes in a whole list of one kind as of a revision; returns how many changes were news."""
        listed = {_key(b): b for b in bodies}
        news = sum(self.put(body) for body in listed.values())
        for key, known in list(self._objects.items()):
            is_meant = key[0] == kind and namespace in {None, key[1]} and key not in listed
            if is_meant and int(known["metadata"]["resourceVersion"]) <= revision:
                self.remove(known)
                news += 1
        return news


def service_of(body: Json) -> ServiceKey | None:
    """The EmbeddingService that an object belongs to by its label, or is."""
    metadata = body["metadata"]
    if body["kind"] == SERVICE_KIND:
        return (metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(SERVICE_LABEL)
    return None if name is None else (metadata["namespace"], name)


def _key(body: Json) -> _Key:
    return (body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _is_newer(body: Json, known: Json) -> bool:
    """Whether a version follows the known one: etcd's revisions grow, also over objects of the same name."""
    return int(body["metadata"]["resourceVersion"]) > int(known["metadata"]["resourceVersion"])
