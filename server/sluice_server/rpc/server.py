"""The gRPC server: services, health, reflection, and the options of its connections."""

from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from gpu_inference import inference_pb2, inference_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer
from sluice.v1 import embeddings_pb2, embeddings_pb2_grpc

from sluice_server.observability.observer import RequestObserver
from sluice_server.rpc.core.moderation import pause_seconds
from sluice_server.rpc.core.server import CoreServer
from sluice_server.rpc.embeddings import EmbeddingsServicer
from sluice_server.rpc.gpu_inference import InferenceServicer
from sluice_server.rpc.methods import Methods
from sluice_server.security import TlsFiles
from sluice_server.serving import EmbeddingService

_SERVICES: tuple[ServiceDescriptor, ...] = (
    embeddings_pb2.DESCRIPTOR.services_by_name["Embeddings"],
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
)
# The empty name is the server as a whole.
HEALTH_NAMES = ("", *(service.full_name for service in _SERVICES))
# Of a message, before its sender waits to be told that they were read: as fast over 10 ms as what gRPC measures, which
# sends a ping for each message. Its own 64 KiB took twice as long.
_FLOW_CONTROL_BYTES = 4 << 20


class GrpcServer:
    """Listens from the start, so that callers hear why they are refused; its health says when to come.

    Args:
        service: Answers the calls.
        max_message_bytes: The largest message either way.
        max_connection_age_seconds: Then clients connect anew and find new pods; gRPC adds its own jitter of 10 %.
        tls: None listens in plain text.
        token: Asked for by every service but health; None asks for none.
        observer: Told of every request.
        shares_port: Other processes of the same server listen on it, too.
    """

    def __init__(
        self,
        service: EmbeddingService,
        *,
        max_message_bytes: int,
        max_connection_age_seconds: int,
        tls: TlsFiles | None = None,
        token: str | None = None,
        observer: RequestObserver | None = None,
        shares_port: bool = False,
    ) -> None:
        options = _options(max_message_bytes, max_connection_age_seconds, shares_port=shares_port)
        self._server = CoreServer(options, lambda: pause_seconds(service.engine.ahead_ms()))
        self._tls = tls
        self._health = HealthServicer()
        names = [*HEALTH_NAMES[1:], health.SERVICE_NAME, reflection.SERVICE_NAME]
        methods = Methods(self._server, token=token, observer=observer)
        for add, servicer in (
            (embeddings_pb2_grpc.add_EmbeddingsServicer_to_server, EmbeddingsServicer(service, observer)),
            (inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(service)),
            (health_pb2_grpc.add_HealthServicer_to_server, self._health),
            (reflection_pb2_grpc.add_ServerReflectionServicer_to_server, ReflectionServicer(names)),
        ):
            add(servicer, methods)

    async def start(self, address: str) -> int:
        """Listens; returns the port.

        Raises:
            OSError: The address cannot be listened on.
        """
        await self.set_serving(serving=False)
        port = self._server.listen(address, self._credentials())
        self._server.start()
        return port

    def _credentials(self) -> grpc.ServerCredentials | None:
        if self._tls is None:
            return None
        return grpc.ssl_server_credentials(
            [(self._tls.private_key, self._tls.certificate_chain)],
            root_certificates=self._tls.client_authority,
            require_client_auth=self._tls.client_authority is not None,
        )

    async def set_serving(self, *, serving: bool) -> None:
        """What health Check and Watch say of the server and each of its services."""
        said = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in HEALTH_NAMES:
            await self._health.set(name, said)

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new calls, lets those under way end within the grace, then closes."""
        await self._server.stop(grace_seconds)


def _options(max_message_bytes: int, max_connection_age_seconds: int, *, shares_port: bool) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_connection_age_ms", 1000 * max_connection_age_seconds),
        ("grpc.max_connection_age_grace_ms", 60_000),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _FLOW_CONTROL_BYTES),
        # Clients that ping often are tolerated: a mesh or a load balancer may stand between.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two servers on one port would share its callers silently.
        ("grpc.so_reuseport", int(shares_port)),
    ]
