"""The contracts between the halves: what one side writes, the other side understands."""

import json
import re
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"https?://|(?<![\w.-])(?:index-url|find-links)")


def test_the_charts_copy_of_the_crd_is_the_source_of_truth() -> None:
    name = "embeddingservices.sluice.dev.yaml"
    assert (ROOT / "charts/sluice/crds" / name).read_text() == (ROOT / "crds" / name).read_text()


def test_the_health_schema_is_itself_valid_and_closed() -> None:
    schema = json.loads((ROOT / "proto/health.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) == set(schema["properties"]), "every key is always present"
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("lock", ["server", "operator", "dev", "tools"])
def test_a_lock_file_has_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / "dev/locks" / f"{lock}.txt").read_text()
    assert not ADDRESS.search(text)
    pins = re.findall(r"^[\w.\[\],-]+==", text, re.MULTILINE)
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)


def test_the_operators_lock_holds_neither_torch_nor_grpc() -> None:
    text = (ROOT / "dev/locks/operator.txt").read_text()
    assert not re.search(r"^(torch|grpcio|protobuf|transformers)==", text, re.MULTILINE)


def test_the_name_of_the_operators_folder_hides_no_module_of_python() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    assert hasattr(sys.modules.get("operator") or __import__("operator"), "itemgetter")
