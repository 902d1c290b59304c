"""The client is small: it runs with what its package names, and nothing else installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

PROJECT = tomllib.loads((Path(__file__).parents[2] / "client" / "pyproject.toml").read_text("utf-8"))
# What the servers' packages bring along is as if it were not there.
ALONE = """
import sys
for name in ("google.rpc", "grpc_health", "grpc_status", "grpc_reflection", "torch", "transformers",
             "sluice_server", "sluice_operator", "kubernetes", "pydantic", "tqdm"):
    sys.modules[name] = None
import sluice_client, sluice_client.__main__, sluice_client.cli
from sluice_client.retry import asked_wait
print(asked_wait([("grpc-status-details-bin", bytes.fromhex(sys.argv[1]))]))
"""


def test_it_runs_alone_and_still_reads_retry_info() -> None:
    status = status_pb2.Status(code=8, message="full")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000)))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, status.SerializeToString().hex()],
        capture_output=True, check=False, timeout=60, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.25\n", "")


def test_its_package_names_the_same() -> None:
    names = {line.partition(">")[0] for line in PROJECT["project"]["dependencies"]}
    assert names == {"sluice-proto", "grpcio", "numpy", "protobuf"}
