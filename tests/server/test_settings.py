"""A bad setting is named with its value and with what is allowed, before anything is loaded."""

import subprocess
import sys

import pytest
from pydantic import ValidationError
from sluice_server.settings import Settings, describe


def run_server(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sluice_server", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("GRPC_PORT", "70000", "GRPC_PORT=70000: Input should be less than or equal to 65535"),
        ("DTYPE", "float8", "DTYPE=float8: Input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ("BUCKETS", "32,16", "BUCKETS=32,16: expected positive numbers in ascending order"),
        ("BATCH_SIZES", "8,x", "BATCH_SIZES=x: Input should be a valid integer"),
        (
            "BACKPRESSURE_SOFT_P95_MS",
            "500",
            "BACKPRESSURE_SOFT_P95_MS=500: expected less than BACKPRESSURE_HARD_P95_MS",
        ),
        ("MAX_TOKENS_PER_BATCH", "128", "MAX_TOKENS_PER_BATCH=128: expected at least the largest bucket, 512"),
        *(
            ("FRONT_ENDS", value, f"FRONT_ENDS={value}: expected auto, or a number from 0 to 256")
            for value in ("many", "-1", "257", "1.5")
        ),
        (
            "MODEL_PATH",
            "ftp://x/y",
            "MODEL_PATH=ftp://x/y: expected a folder, a hub id, or one of file://, hf://, s3://",
        ),
        ("QUANTIZATION", "int4", "QUANTIZATION=int4: Input should be 'none', 'int8' or 'fp8'"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert sentence in describe(refused.value)


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKETS", "16, 64,128")
    monkeypatch.setenv("EXCLUDE_TOKENS", "[title],[query]")
    settings = Settings()
    assert settings.buckets == (16, 64, 128)
    assert settings.exclude_tokens == ("[title]", "[query]")


@pytest.mark.parametrize(("value", "count"), [("auto", "auto"), ("AUTO", "auto"), ("0", 0), ("4", 4)])
def test_front_ends_are_counted_or_left_to_the_server(
    monkeypatch: pytest.MonkeyPatch, value: str, count: int | str
) -> None:
    monkeypatch.setenv("FRONT_ENDS", value)
    assert Settings().front_ends == count


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_PORT", "")
    assert Settings().grpc_port == 50051


def test_a_bad_setting_ends_the_process_with_2_before_torch_is_imported() -> None:
    done = run_server(GRPC_PORT="x", PYTHONVERBOSE="")
    assert done.returncode == 2
    assert done.stderr.startswith("GRPC_PORT=x: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_documents_every_setting_as_a_flag() -> None:
    done = run_server("--help")
    assert done.returncode == 0
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in done.stdout
        assert field.description
