"""A bucket of a test's own, and what tests do with it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sluice_server.errors import ModelLoadError
from sluice_server.model import s3
from sluice_server.model.s3.transfer import TransferLimits

from tests.server.model.s3.object_store import ObjectStore
from tests.server.model.s3.proxy import Proxy

MIB = 1 << 20
SMALL = TransferLimits(part_bytes=32 << 10, threads=4)
PATTERNS = ["*.safetensors", "*.json", "*.txt"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of the test's own; the environment names the proxy in front of it."""

    name: str
    store: ObjectStore
    client: Any
    proxy: Proxy
    cache: Path

    @property
    def uri(self) -> str:
        return f"s3://{self.name}/models/tiny"

    def upload(self, folder: Path, prefix: str = "models/tiny") -> int:
        """Returns how many bytes the files have."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            self.client.upload_file(str(path), self.name, f"{prefix}/{path.relative_to(folder)}")
        return sum(path.stat().st_size for path in files)

    def put(self, name: str, data: bytes, **settings: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=f"models/tiny/{name}", Body=data, **settings)

    def fetch(self, **settings: Any) -> tuple[Path, str]:
        arguments = {"limits": SMALL, "revision": None, "report": lambda *_: None, **settings}
        return s3.fetch(self.uri, cache_dir=str(self.cache), patterns=PATTERNS, **arguments)

    def published(self) -> list[Path]:
        return [path for path in self.cache.glob("*/*") if not path.name.startswith(".")]

    def fetch_in_a_process(self) -> subprocess.Popen[str]:
        code = (
            "from sluice_server.model import s3; from sluice_server.model.s3.transfer import TransferLimits;"
            f"print(s3.fetch({self.uri!r}, None, {str(self.cache)!r}, {PATTERNS}, print, {SMALL})[0])"
        )
        return subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(bucket: Bucket, **settings: Any) -> str:
    with pytest.raises(ModelLoadError) as refused:
        bucket.fetch(**settings)
    assert not bucket.published()
    return str(refused.value)


def journaled_lengths(bucket: Bucket) -> list[int]:
    """Lengths of the parts that are complete."""
    text = "".join(path.read_text() for path in bucket.cache.glob("*/.*.partial/journal"))
    return [length for _, _, length in map(json.loads, filter(None, text.splitlines())) if length]


def drop(folder: Path) -> None:
    """Takes a published model away."""
    folder.rename(folder.with_name(".dropped"))
