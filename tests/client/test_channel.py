"""Addresses and channel options."""

import json

import pytest
from sluice_client import ChannelOptions, EmbeddingClient, RetryPolicy
from sluice_client.channel import check_target


@pytest.mark.parametrize(
    "target",
    [
        "dns:///minilm-headless:50051",
        "dns://10.0.0.10/minilm-headless:50051",
        "minilm-headless.default.svc.cluster.local:50051",
        "127.0.0.1:50051",
        "[::1]:50051",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "ipv6:[2001:db8::1]:50051",
        "unix:/run/sluice.sock",
    ],
)
def test_grpcs_addresses_are_taken(target: str) -> None:
    assert check_target(target) == target


@pytest.mark.parametrize("target", ["", "http://minilm:8001", "dns:///minilm-headless", "minilm", "minilm:", ":50051"])
def test_what_grpc_would_misread_is_refused_by_name(target: str) -> None:
    with pytest.raises(ValueError, match="expected an address with its port, such as dns:///NAME-headless:50051"):
        check_target(target)


def test_a_channel_balances_over_the_pods_that_say_they_serve() -> None:
    config = json.loads(dict(ChannelOptions().grpc_options())["grpc.service_config"])
    assert config == {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": "sluice.v1.Embeddings"},
    }


def test_secrets_are_not_shown() -> None:
    options = ChannelOptions(b"ca", b"the key", b"chain", bearer_token="the token")
    assert "the key" not in repr(options)
    assert "the token" not in repr(options)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"root_certificates": b"ca", "private_key": b"key"}, "private_key and certificate_chain: expected both"),
        ({"private_key": b"key", "certificate_chain": b"chain"}, "without root_certificates or tls=True"),
        ({"server_name": "minilm"}, "without root_certificates or tls=True"),
        ({"max_message_bytes": 0}, "max_message_bytes=0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ChannelOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_seconds": 0.0},
        {"deadline_seconds": float("inf")},
        {"max_inputs_per_request": 0},
        {"max_tokens_per_request": 0},
        {"max_in_flight": 0},
    ],
)
def test_a_client_that_cannot_work_names_the_value(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        EmbeddingClient("svc:50051", **wrong)  # type: ignore[arg-type]


def test_a_policy_is_a_value_of_the_client() -> None:
    assert EmbeddingClient("svc:50051", retry_policy=RetryPolicy(max_attempts=3))._policy.max_attempts == 3
