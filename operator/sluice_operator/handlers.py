"""What kopf calls: watches go into the store, everything else happens elsewhere.

Only `kopf.on.event` is used. It neither annotates objects nor adds finalizers, unlike kopf's daemons, timers
and change handlers; see `supervisor` for why that matters. Start with `python -m sluice_operator`, or with
`kopf run -m sluice_operator.handlers --standalone -A`.
"""

from __future__ import annotations

from typing import Any

import kopf

from sluice_operator import settings as operator_settings
from sluice_operator.kube import load_configuration
from sluice_operator.resync import OWNED
from sluice_operator.runtime import Operator

_OWNED_RESOURCES = (("", "v1", "pods"), ("", "v1", "services"), ("apps", "v1", "deployments"),
                    ("policy", "v1", "poddisruptionbudgets"))  # fmt: skip


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
async def start(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
    """Configures kopf's watches and starts the operator: the one that `__main__` made, or a new one."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.networking.request_timeout = 30
    for resource in _OWNED_RESOURCES:
        settings.watching.label_selectors[resource] = OWNED
    if not hasattr(memo, "operator"):
        memo.operator = Operator(operator_settings.from_environment())
    await memo.operator.start()


@kopf.on.cleanup()
async def stop(memo: Any, **_: Any) -> None:
    """Stops acting before the process ends."""
    if hasattr(memo, "operator"):
        await memo.operator.stop()


@kopf.on.event("sluice.dev", "v1alpha1", "embeddingservices")
async def service_changed(type: str | None, event: Any, memo: Any, **_: Any) -> None:  # noqa: A002 - kopf's name
    """An EmbeddingService was made, changed or deleted."""
    memo.operator.saw(type, event["object"])


@kopf.on.event("", "v1", "pods")
@kopf.on.event("", "v1", "services")
@kopf.on.event("apps", "v1", "deployments")
@kopf.on.event("policy", "v1", "poddisruptionbudgets")
async def child_changed(type: str | None, event: Any, memo: Any, **_: Any) -> None:  # noqa: A002 - kopf's name
    """An object that carries the operator's label was made, changed or deleted."""
    memo.operator.saw(type, event["object"])
