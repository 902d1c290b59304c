"""What kopf calls: it logs in, watches, and hands on what it saw; everything else happens elsewhere.

Only `kopf.on.event` is used. It neither annotates objects nor adds finalizers, unlike kopf's daemons, timers
and change handlers; see `supervisor` for why that matters. `watches` runs kopf, with what is to be told in its memo.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import kopf

from sluice_operator.kube import load_configuration
from sluice_operator.resync import OWNED

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNED_RESOURCES = (("", "v1", "pods"), ("", "v1", "services"), ("apps", "v1", "deployments"),
                    ("policy", "v1", "poddisruptionbudgets"),
                    ("networking.k8s.io", "v1", "networkpolicies"))  # fmt: skip


class _Backoffs:
    """Pauses between attempts, for ever: kopf gives up, and ends, where they end."""

    def __iter__(self) -> Iterator[float]:
        for seconds in itertools.chain((0.25, 0.5, 1.0), itertools.repeat(2.0)):
            yield seconds * (0.75 + random.random() / 2)  # noqa: S311 - spreads retries, keeps no secret


@kopf.on.login()
async def log_in(**_: Any) -> kopf.ConnectionInfo:
    """The credentials of the operator's own client, read anew whenever kopf's are refused."""
    configuration = await load_configuration()
    header = await configuration.get_api_key_with_prefix("BearerToken")

    scheme, _separator, token = (header or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """How kopf watches."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # It would kill the whole process some minutes after kopf failed.
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    for resource in _OWNED_RESOURCES:
        settings.watching.label_selectors[resource] = OWNED


@kopf.on.event("sluice.dev", "v1alpha1", "embeddingservices")
@kopf.on.event("", "v1", "pods")
@kopf.on.event("", "v1", "services")
@kopf.on.event("apps", "v1", "deployments")
@kopf.on.event("policy", "v1", "poddisruptionbudgets")
@kopf.on.event("networking.k8s.io", "v1", "networkpolicies")
async def changed(type: str | None, event: Any, memo: Any, **_: Any) -> None:  # noqa: A002 - kopf's name
    """An EmbeddingService, or an object with the operator's label, was listed, made, changed or deleted."""
    memo.saw(type, event["object"])
