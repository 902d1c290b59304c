"""How a channel to a Sluice service is made: every pod behind the headless Service, healthy ones only."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import grpc

# --- the service config, and all that goes with it; nothing of it stands anywhere else ---------------
_HEALTH_SERVICE = "sluice.v1.Embeddings"
# The retries stand in retry.py, where they keep the caller's deadline. gRPC's own stay on for one thing:
# a request that never reached a server is sent again at once.
_SERVICE_CONFIG = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": _HEALTH_SERVICE}}
)
_FIXED_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    # A service config found in DNS would take the place of ours.
    ("grpc.service_config_disable_resolution", 1),
    # A new pod is seen when a connection ends (the server bounds their age); then ask DNS at once.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A pod that comes back is used within seconds; gRPC's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A node that vanished without a word is noticed; the server tolerates a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_WITH_PORT = re.compile(r"(^|dns:(//[^/]*/)?|ipv[46]:(///?)?)[^/]+:\d+")
_OTHER_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "xds:")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How to reach a service.

    Attributes:
        root_certificates: PEM of the authority that signed the server's certificate.
        private_key: PEM of the client's key, for mutual TLS.
        certificate_chain: PEM of the client's certificate, for mutual TLS.
        bearer_token: Sent as `authorization: Bearer …` with every request.
        max_message_bytes: The largest request or reply that this client takes.
        tls: Speak TLS and trust the well-known authorities; root_certificates imply TLS.
        server_name: The name that the server's certificate must hold; None takes it from the target.

    Raises:
        ValueError: Values that do not go together.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None
    bearer_token: str | None = field(default=None, repr=False)
    max_message_bytes: int = 64 << 20
    tls: bool = False
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("private_key and certificate_chain: expected both or neither")
        if not self.speaks_tls and (self.private_key or self.server_name):
            raise ValueError("private_key and server_name have no use without root_certificates or tls=True")
        if self.max_message_bytes < 1:
            raise ValueError(f"max_message_bytes={self.max_message_bytes}: expected at least 1")

    @property
    def speaks_tls(self) -> bool:
        """Plain text otherwise."""
        return self.tls or self.root_certificates is not None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every request."""
        return (("authorization", f"Bearer {self.bearer_token}"),) if self.bearer_token else ()

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """None for plain text."""
        if not self.speaks_tls:
            return None
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)

    def grpc_options(self) -> list[tuple[str, Any]]:
        """Channel arguments: round_robin over all addresses, and only those whose health is SERVING."""
        return [
            *_FIXED_OPTIONS,
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            *([("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []),
        ]


def check_target(target: str) -> str:
    """The target, if gRPC would take it for what it looks like.

    Raises:
        ValueError: A URL, or a name without a port: gRPC would ask for port 443.
    """
    if target.startswith(_OTHER_SCHEMES) or _WITH_PORT.fullmatch(target):
        return target
    raise ValueError(
        f"target {target!r}: expected an address with its port, such as dns:///NAME-headless:50051, "
        "ipv4:10.0.0.1:50051,10.0.0.2:50051 or unix:/path"
    )


def open_sync(target: str, options: ChannelOptions) -> grpc.Channel:
    """A channel for threads; connects when it is first used."""
    credentials = options.credentials
    if credentials is None:
        return grpc.insecure_channel(target, options=options.grpc_options())
    return grpc.secure_channel(target, credentials, options=options.grpc_options())


def open_async(target: str, options: ChannelOptions) -> grpc.aio.Channel:
    """A channel for the running event loop; connects when it is first used."""
    credentials = options.credentials
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options.grpc_options())
    return grpc.aio.secure_channel(target, credentials, options=options.grpc_options())
