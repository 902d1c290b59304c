"""The environment that the operator sets is the one that the server reads."""

import contextlib

import pytest
from sluice_operator.environment import server_environment
from sluice_server.settings import Settings as ServerSettings

from tests.operator.builders import service

READ_BY_LIBRARIES = {"HF_HOME", "HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "AWS_ENDPOINT_URL_S3", "AWS_REGION"}


def test_every_variable_is_a_setting_of_the_server_and_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = service(
        model={
            "uri": "hf://o/m",
            "revision": "v1",
            "excludeTokens": ["[q]"],
            "maxInputTokens": 64,
            "dtype": "bfloat16",
        },
        server={"device": "cpu", "layout": "padded", "backpressure": {"latency": {"enabled": True}}},
    )
    variables = {v["name"]: v["value"] for v in server_environment(wanted.spec)}
    unknown = {n for n in variables if n.lower() not in ServerSettings.model_fields} - READ_BY_LIBRARIES
    assert unknown == set()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    read = ServerSettings()
    assert (read.model_path, read.model_revision, read.max_input_tokens) == ("hf://o/m", "v1", 64)
    assert read.buckets == wanted.spec.server.buckets
    assert read.backpressure_latency_enabled is True
    assert read.shutdown_drain_seconds == 5


def test_the_object_store_is_where_the_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice_server.model.s3.store import Store

    store = {"endpoint": "http://minio.storage.svc:9000", "region": "eu-central-1"}
    wanted = service(model={"uri": "s3://models/minilm", "credentialsSecretRef": {"name": "s"}, "s3": store})
    for variable in server_environment(wanted.spec):
        name = variable["name"]
        secret = variable.get("valueFrom", {}).get("secretKeyRef", {})
        if not secret.get("optional"):
            monkeypatch.setenv(name, variable.get("value", f"the secret's {secret.get('key')}"))
    with contextlib.closing(Store("s3://models/minilm", "models", "minilm/", 1)) as opened:
        client = opened._client
        assert client.meta.endpoint_url == store["endpoint"]
        assert client.meta.region_name == store["region"]
        credentials = client._request_signer._credentials
        assert credentials.access_key == "the secret's AWS_ACCESS_KEY_ID"
        assert credentials.secret_key == "the secret's AWS_SECRET_ACCESS_KEY"
