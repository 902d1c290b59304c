"""Every byte once, and through everything that breaks a download."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.model.s3.bucket import SMALL, Bucket, content, journaled_lengths, refusal
from tests.server.model.s3.proxy import Exchange

pytestmark = pytest.mark.timeout(900)  # the first build of the store's server takes minutes


def test_ranges_come_in_parallel_and_each_byte_once(bucket: Bucket, tiny: Path) -> None:
    total = bucket.upload(tiny)
    together = threading.Barrier(SMALL.threads)
    held = []

    def before(exchange: Exchange) -> None:
        # The first ones go on only together: in a download one by one none ever would.
        assert not bucket.published(), "nothing is published before it is whole"
        if exchange.key and len(held) < SMALL.threads:
            held.append(exchange)
            together.wait(20)

    bucket.proxy.before = before
    sentences: list[str] = []
    folder, _ = bucket.fetch(report=lambda phase, sentence: sentences.append(f"{phase}: {sentence}"))
    assert content(folder) == content(tiny)
    assert bucket.proxy.bytes_sent == total
    assert not together.broken
    assert re.fullmatch(rf"downloading: {bucket.uri}: \d+ of \d+ MiB, \d+ MiB/s", sentences[1])
    assert re.fullmatch(rf"downloading: {bucket.uri}: checked \d+ of 3 files", sentences[-1])


def test_after_kill_9_only_the_missing_bytes_are_fetched(bucket: Bucket, tiny: Path) -> None:
    total = bucket.upload(tiny)
    go_on, held = threading.Event(), threading.Event()

    def before(exchange: Exchange) -> None:
        if len(bucket.proxy.exchanges) > 6:
            held.set()
            go_on.wait(60)

    bucket.proxy.before = before
    with bucket.fetch_in_a_process() as process:
        assert held.wait(60)
        arrived = _until(lambda: journaled_lengths(bucket), 6)
        process.send_signal(signal.SIGKILL)
    assert not bucket.published()
    bucket.proxy.before = lambda _: None
    go_on.set()
    bucket.proxy.exchanges.clear()
    folder, _ = bucket.fetch()
    assert content(folder) == content(tiny)
    assert bucket.proxy.bytes_sent == total - arrived
    assert [path.name for path in folder.parent.glob("*.partial")] == []


def _until(lengths: Callable[[], list[int]], count: int) -> int:
    """Bytes of so many parts, once they are complete."""
    deadline = time.monotonic() + 30
    while len(found := lengths()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return sum(found)


def test_a_broken_connection_goes_on_from_the_last_byte(bucket: Bucket, tiny: Path) -> None:
    total = bucket.upload(tiny)
    cut: list[Exchange] = []

    def alter(exchange: Exchange, piece: bytes) -> bytes | None:
        if not cut and exchange.key.endswith("model.safetensors") and exchange.sent:
            cut.append(exchange)
            return None
        return piece

    bucket.proxy.alter = alter
    folder, _ = bucket.fetch()
    assert content(folder) == content(tiny)
    assert cut[0].sent
    assert bucket.proxy.bytes_sent == total
    assert cut[0].first_byte + cut[0].sent in [exchange.first_byte for exchange in bucket.proxy.exchanges]


def test_a_store_that_breaks_every_connection_is_named(
    bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    bucket.upload(tiny)
    bucket.proxy.alter = lambda exchange, _: None if exchange.key.endswith("config.json") else _
    assert re.search(r"MODEL_PATH=s3://.*: config\.json: .*; gave up after 5 tries", refusal(bucket))


def test_an_object_that_changes_in_the_midst_is_fetched_anew(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    old = (tiny / "model.safetensors").read_bytes()
    new = bytes(reversed(old))
    seen = []

    def before(exchange: Exchange) -> None:
        if exchange.key.endswith("model.safetensors"):
            seen.append(exchange)
            if len(seen) == 3:
                bucket.put("model.safetensors", new)

    bucket.proxy.before = before
    folder, _ = bucket.fetch()
    assert content(folder) == {**content(tiny), "model.safetensors": new}
    assert bucket.published() == [folder]
    assert list(folder.parent.glob("*.partial")) == [], "what was half done of the old one is gone"


def test_a_change_of_a_file_that_had_arrived_is_noticed_before_anything_is_published(
    bucket: Bucket, tiny: Path
) -> None:
    bucket.upload(tiny)
    listings = []

    def before(exchange: Exchange) -> None:
        if not exchange.key:
            listings.append(len(bucket.proxy.exchanges))
            if len(listings) == 2:
                bucket.put("tokenizer.json", b"{}")

    bucket.proxy.before = before
    folder, _ = bucket.fetch()
    assert content(folder) == {**content(tiny), "tokenizer.json": b"{}"}
    assert bucket.published() == [folder]
    assert 0 < listings[1] == listings[2], "everything had arrived when it changed"


def test_an_upload_that_never_ends_is_refused(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    bucket.proxy.before = lambda exchange: (
        bucket.put("config.json", os.urandom(8)) if exchange.key.endswith("config.json") else None
    )
    assert re.search(r"config\.json changed during the download, 3 times", refusal(bucket))


def test_a_disk_that_is_too_small_is_named(bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.upload(tiny)
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*statvfs(path)[:4], 0, *statvfs(path)[5:])))
    assert re.search(r"\d+ MiB are still to come, and MODEL_CACHE_DIR has room for 0 MiB", refusal(bucket))


def test_a_cache_that_cannot_be_written_is_named(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    bucket.cache.write_text("not a folder")
    assert re.search(r"MODEL_CACHE_DIR=.*cache: .*[Nn]ot a directory", refusal(bucket))


def test_a_server_that_is_told_to_end_does_not_wait_for_its_download(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    held, go_on = threading.Event(), threading.Event()

    def before(exchange: Exchange) -> None:
        if exchange.key:
            held.set()
            go_on.wait(60)

    bucket.proxy.before = before
    environment = {
        **os.environ, "MODEL_PATH": bucket.uri, "MODEL_CACHE_DIR": str(bucket.cache), "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0", "SHUTDOWN_PROPAGATION_SECONDS": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "sluice_server"], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        assert held.wait(60)
        process.send_signal(signal.SIGTERM)
        # The store answers only after this.
        assert process.wait(40) == 0
    go_on.set()
