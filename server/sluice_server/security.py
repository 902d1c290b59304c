"""TLS files and the bearer token: read once, compared in constant time."""

import hmac
from dataclasses import dataclass
from pathlib import Path

from sluice_server.errors import UnauthenticatedError

# gRPC health and HTTP probes answer without a token: the kubelet and the operator have none.
OPEN_GRPC_SERVICES = ("grpc.health.v1.Health",)
OPEN_HTTP_PATHS = ("/health", "/startupz", "/livez", "/readyz", "/metrics")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM contents for the gRPC port.

    Attributes:
        certificate_chain: The server's.
        private_key: The server's.
        client_authority: Who signs clients' certificates; None asks clients for none.
    """

    certificate_chain: bytes
    private_key: bytes
    client_authority: bytes | None


def read_tls_files(certificate: str | None, key: str | None, client_authority: str | None) -> TlsFiles | None:
    """The contents of the files; None where TLS is not asked for.

    Raises:
        OSError: A file cannot be read.
    """
    if certificate is None or key is None:
        return None
    authority = Path(client_authority).read_bytes() if client_authority else None
    return TlsFiles(Path(certificate).read_bytes(), Path(key).read_bytes(), authority)


def check_token(expected: str, authorization: str | None) -> None:
    """Compares an `authorization` header with the token.

    Raises:
        UnauthenticatedError: It is missing or another one.
    """
    if authorization is None:
        raise UnauthenticatedError("the authorization header is missing; expected 'Bearer' and the token")
    if not hmac.compare_digest(authorization.encode(errors="surrogateescape"), f"Bearer {expected}".encode()):
        raise UnauthenticatedError("the bearer token is not the server's")
