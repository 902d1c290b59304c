"""The environment that the operator sets is the one that the server reads."""

import pytest
from sluice_operator.environment import server_environment
from sluice_server.settings import Settings as ServerSettings

from tests.operator.builders import service

READ_BY_LIBRARIES = {"HF_HOME", "HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR"}


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
