"""How a channel to a Sluice service is made: every pod behind the headless Service, healthy ones only."""

import json
from dataclasses import dataclass
from typing import Any

_SERVICE = "sluice.v1.Embeddings"

# The retries stand in retry.py, where they honour the caller's deadline; gRPC adds none of its own.
_SERVICE_CONFIG = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": _SERVICE}}
)


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How to reach a service.

    Attributes:
        root_certificates: PEM of the authority that signed the server's certificate; None means plain text.
        private_key: PEM of the client's key, for mutual TLS.
        certificate_chain: PEM of the client's certificate, for mutual TLS.
        bearer_token: Sent as `authorization: Bearer …` with every request.
        max_message_bytes: The largest request or reply that this client takes.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    bearer_token: str | None = None
    max_message_bytes: int = 64 << 20

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every request."""
        return (("authorization", f"Bearer {self.bearer_token}"),) if self.bearer_token else ()

    def grpc_options(self) -> list[tuple[str, Any]]:
        """Channel arguments: round_robin over all addresses, and only those whose health is SERVING."""
        return [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            # A new pod is seen when a connection ends (the server bounds their age); then ask DNS at once.
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ]
