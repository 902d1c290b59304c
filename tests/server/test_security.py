"""TLS, mutual TLS and the bearer token, through real sockets."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_client import ChannelOptions, EmbeddingClient, EmbeddingError
from sluice_server.settings import Settings

from tests.server.conftest import RunningServer, running_server
from tests.server.test_apis import get


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """An authority, a server's certificate for 127.0.0.1, and a client's."""
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    for name in ("server", "client"):
        openssl(
            "req", "-x509", *key, "-subj", f"/CN={name}", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip

    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    read.folder = folder  # type: ignore[attr-defined]
    return read


@pytest.fixture(scope="module")
def guarded(certificates: Any, model_folder: Path) -> Iterator[RunningServer]:
    """Mutual TLS and a token at once."""
    folder = certificates.folder
    with running_server(
        model_path=str(model_folder), api_token="a-secret", tls_cert_file=str(folder / "server.pem"),
        tls_key_file=str(folder / "server.key"), tls_client_ca_file=str(folder / "ca.pem"),
    ) as running:  # fmt: skip
        running.wait_for_phase("serving")
        yield running


def options(
    certificates: Callable[[str], bytes], *, token: str | None, with_certificate: bool = True
) -> ChannelOptions:
    pair = (certificates("client.key"), certificates("client.pem")) if with_certificate else (None, None)
    return ChannelOptions(certificates("ca.pem"), *pair, bearer_token=token)


def embed(running: RunningServer, channel: ChannelOptions | None) -> Any:
    with EmbeddingClient(running.grpc_target, channel_options=channel, deadline_seconds=5) as client:
        return client.embed(["a text", "another"])


def test_a_client_with_certificate_and_token_is_served(guarded: RunningServer, certificates: Any) -> None:
    rows = embed(guarded, options(certificates, token="a-secret"))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize(("token", "said"), [(None, "header is missing"), ("wrong", "is not the server's")])
def test_a_client_without_the_token_is_refused(
    guarded: RunningServer, certificates: Any, token: str | None, said: str
) -> None:
    with pytest.raises(EmbeddingError, match=said) as refused:
        embed(guarded, options(certificates, token=token))
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_client_without_a_certificate_is_not_connected(guarded: RunningServer, certificates: Any) -> None:
    with pytest.raises(EmbeddingError) as refused:
        embed(guarded, options(certificates, token="a-secret", with_certificate=False))
    assert refused.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_health_and_probes_ask_for_no_token(guarded: RunningServer, certificates: Any) -> None:
    credentials = grpc.ssl_channel_credentials(
        certificates("ca.pem"), certificates("client.key"), certificates("client.pem")
    )
    with grpc.secure_channel(guarded.grpc_target, credentials) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for path in ("health", "startupz", "livez", "readyz", "metrics"):
        get(f"{guarded.url}/{path}")
    assert "header is missing" in get(f"{guarded.url}/v1/embeddings", {"input": "a"}, expect=401)
    assert "header is missing" in get(f"{guarded.url}/info", expect=401)


def test_a_certificate_without_its_key_is_a_bad_setting() -> None:
    with pytest.raises(ValueError, match="TLS_CERT_FILE and TLS_KEY_FILE: expected both or neither"):
        Settings(tls_cert_file="a.pem")
