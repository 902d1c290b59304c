"""A real S3 server on loopback."""

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from dev.cluster import binaries, versions

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """versitygw over a folder: objects are its files, what is known of them stands elsewhere."""

    url: str
    folder: Path
    access_key: str
    secret_key: str
    binary: Path

    def client(self, **config: Any) -> Any:
        return boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION, aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key, config=Config(**config),
        )  # fmt: skip

    def create_user(self, access_key: str, secret_key: str) -> None:
        """A user who may do nothing in the buckets of others."""
        subprocess.run(
            [self.binary, "admin", "--endpoint-url", self.url, "--access", self.access_key, "--secret",
             self.secret_key, "create-user", "--access", access_key, "--secret", secret_key, "--role", "user"],
            check=True, capture_output=True, timeout=20,
        )  # fmt: skip


@contextlib.contextmanager
def running_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Starts the server, built first where it is missing, on a free port; ends it by its process id."""
    binary = binaries.ensure_binaries([versions.OBJECT_STORE])["versitygw"]
    for name in ("buckets", "about", "users"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "--port", f"127.0.0.1:{port}", "--region", REGION, "--keep-alive", "--quiet",
             "--iam-dir", folder / "users", "posix", "--sidecar", folder / "about", folder / "buckets"],
            env={"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key, "PATH": os.environ["PATH"]},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_for(process, port, folder / "log")
        yield ObjectStore(f"http://127.0.0.1:{port}", folder / "buckets", access_key, secret_key, binary)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
