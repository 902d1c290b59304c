"""TLS, mutual TLS and the bearer token, through real sockets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_client import ChannelOptions, EmbeddingClient, EmbeddingError
from sluice_server.settings import Settings

from tests.server.certificates import Certificates, make_certificates
from tests.server.conftest import RunningServer, running_server
from tests.server.test_apis import get


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def guarded(certificates: Certificates, model_folder: Path) -> Iterator[RunningServer]:
    """Mutual TLS and a token at once."""
    with running_server(
        model_path=str(model_folder), api_token="a-secret", **certificates.server_settings
    ) as running:  # fmt: skip
        running.wait_for_phase("serving")
        yield running


def embed(running: RunningServer, channel: ChannelOptions | None) -> Any:
    with EmbeddingClient(running.grpc_target, channel_options=channel, deadline_seconds=5) as client:
        return client.embed(["a text", "another"])


def test_a_client_with_certificate_and_token_is_served(guarded: RunningServer, certificates: Certificates) -> None:
    rows = embed(guarded, certificates.client(token="a-secret"))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize(("token", "said"), [(None, "header is missing"), ("wrong", "is not the server's")])
def test_a_client_without_the_token_is_refused(
    guarded: RunningServer, certificates: Certificates, token: str | None, said: str
) -> None:
    with pytest.raises(EmbeddingError, match=said) as refused:
        embed(guarded, certificates.client(token=token))
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_client_without_a_certificate_is_not_connected(guarded: RunningServer, certificates: Certificates) -> None:
    with pytest.raises(EmbeddingError) as refused:
        embed(guarded, certificates.client(token="a-secret", with_certificate=False))
    assert refused.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_health_and_probes_ask_for_no_token(guarded: RunningServer, certificates: Certificates) -> None:
    credentials = grpc.ssl_channel_credentials(
        certificates.read("ca.pem"), certificates.read("client.key"), certificates.read("client.pem")
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


@pytest.mark.parametrize(
    ("setting", "file", "said"),
    [
        ("tls_cert_file", "absent.pem", "TLS_CERT_FILE=.*absent.pem: No such file"),
        ("tls_key_file", ".", "TLS_KEY_FILE=.*: Is a directory"),
        ("tls_key_file", "client.key", "TLS_KEY_FILE=.*client.key: KEY_VALUES_MISMATCH"),
        ("tls_cert_file", "words.pem", "TLS_CERT_FILE=.*words.pem.*expected a certificate chain and its private key"),
        ("tls_client_ca_file", "words.pem", "TLS_CLIENT_CA_FILE=.*words.pem: .*expected certificates in PEM"),
    ],
)
def test_a_tls_file_that_cannot_be_used_is_a_bad_setting(
    certificates: Certificates, setting: str, file: str, said: str
) -> None:
    (certificates.folder / "words.pem").write_text("no certificate at all")
    given = certificates.server_settings | {setting: str(certificates.folder / file)}
    with pytest.raises(ValueError, match=said):
        Settings(**given)  # type: ignore[arg-type]


def test_the_files_of_a_server_with_mutual_tls_are_good_settings(certificates: Certificates) -> None:
    assert Settings(**certificates.server_settings).tls_cert_file  # type: ignore[arg-type]
