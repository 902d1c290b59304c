"""TLS, mutual TLS and the token: the asyncio client and the command, against a server that asks for all."""

# ruff: noqa: F811 - fixtures are imported and then named as parameters

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice_client import AsyncEmbeddingClient, ChannelOptions, UnauthenticatedError, UnavailableError

from tests.client.test_cli import run
from tests.server.certificates import Certificates
from tests.server.conftest import RunningServer
from tests.server.test_security import certificates, guarded  # noqa: F401


def options(certificates: Certificates, **changes: Any) -> ChannelOptions:
    return replace(certificates.client(token="a-secret"), **changes)


async def test_the_async_client_is_served(guarded: RunningServer, certificates: Certificates) -> None:
    async with AsyncEmbeddingClient(guarded.grpc_target, channel_options=options(certificates)) as client:
        assert (await client.embed(["a text"])).shape == (1, 384)


async def test_several_addresses_share_a_certificates_name(guarded: RunningServer, certificates: Certificates) -> None:
    target = f"ipv4:{guarded.grpc_target},{guarded.grpc_target}"
    named = options(certificates, server_name="127.0.0.1")
    async with AsyncEmbeddingClient(target, channel_options=named) as client:
        assert (await client.embed(["a text"])).shape == (1, 384)


async def test_a_certificate_of_another_name_is_not_trusted(guarded: RunningServer, certificates: Certificates) -> None:
    named = options(certificates, server_name="minilm-headless")
    async with AsyncEmbeddingClient(guarded.grpc_target, channel_options=named, deadline_seconds=2) as client:
        with pytest.raises(UnavailableError, match=r"no server was reached .*(?i:certificate|verif|peer|hostname)"):
            await client.embed(["a text"])


async def test_a_wrong_token_is_told_with_what_to_do(guarded: RunningServer, certificates: Certificates) -> None:
    channel = options(certificates, bearer_token="wrong")
    async with AsyncEmbeddingClient(guarded.grpc_target, channel_options=channel) as client:
        with pytest.raises(UnauthenticatedError, match="is not the server's") as refused:
            await client.embed(["a text"])
    assert "SLUICE_TOKEN" in refused.value.hint


def test_the_command_reads_its_token_from_the_environment(
    guarded: RunningServer,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = certificates.folder
    words = ("--ca", folder / "ca.pem", "--cert", folder / "client.pem", "--key", folder / "client.key")
    output = tmp_path / "rows.npy"
    monkeypatch.setenv("OTHER_TOKEN", "a-secret")
    done = run(guarded.grpc_target, "-", "-o", output, *words, "--token-env", "OTHER_TOKEN", input=b"a text\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert np.load(output).shape == (1, 384)
    refused = run(guarded.grpc_target, "-", "-o", output, *words, input=b"a text\n")
    assert refused.returncode == 1
    assert b"hint: give the server's bearer token" in refused.stderr


def test_the_well_known_authorities_are_trusted_where_no_other_is_named(
    guarded: RunningServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = certificates.folder
    words = ("--tls", "--cert", folder / "client.pem", "--key", folder / "client.key", "--connect-seconds", 3)
    monkeypatch.setenv("SLUICE_TOKEN", "a-secret")
    assert run(guarded.grpc_target, "-", *words, input=b"a text\n").returncode == 1
    # gRPC's own way to name the file of the well-known authorities.
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(folder / "ca.pem"))
    assert run(guarded.grpc_target, "-", *words, input=b"a text\n").returncode == 0
