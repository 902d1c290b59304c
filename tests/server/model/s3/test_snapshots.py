"""One cache for many processes: each gets the whole model, and one downloads it."""

import errno
import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sluice_server.model.s3 import source
from sluice_server.model.s3.snapshots import Snapshots

from tests.server.model.s3.bucket import Bucket, content, drop
from tests.server.model.s3.proxy import Exchange

pytestmark = pytest.mark.timeout(900)  # the first build of the store's server takes minutes


def test_two_processes_with_one_cache_download_once(bucket: Bucket, tiny: Path) -> None:
    total = bucket.upload(tiny)
    held, go_on = threading.Event(), threading.Event()

    def before(exchange: Exchange) -> None:
        if exchange.key:
            held.set()
            go_on.wait(60)

    bucket.proxy.before = before
    with bucket.fetch_in_a_process() as first:
        assert held.wait(60)
        with bucket.fetch_in_a_process() as second:
            assert second.stdout is not None
            assert "asking what there is" in second.stdout.readline()
            assert "another process does" in second.stdout.readline()
            go_on.set()
            printed = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)]
    assert printed == [str(bucket.published()[0])] * 2
    assert content(Path(printed[0])) == content(tiny)
    assert bucket.proxy.bytes_sent == total


def test_whoever_waits_says_so(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    _, revision = bucket.fetch()
    drop(bucket.published()[0])
    lock = next(bucket.cache.glob(f"*/.{revision}.lock"))
    with lock.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        said: list[str] = []

        def report(_: str, sentence: str) -> None:
            said.append(sentence)
            if "waiting" in sentence:
                fcntl.flock(holder, fcntl.LOCK_UN)

        bucket.fetch(report=report)
    assert said[1] == f"{bucket.uri}: another process does; waiting for 0 s"


def test_a_holder_that_is_silent_blocks_nobody(bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.upload(tiny)
    _, revision = bucket.fetch()
    drop(bucket.published()[0])
    monkeypatch.setattr(source, "Snapshots", lambda cache, uri: Snapshots(cache, uri, stalled_seconds=0.1))
    with next(bucket.cache.glob(f"*/.{revision}.lock")).open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        folder, _ = bucket.fetch()
    assert content(folder) == content(tiny)
    assert list(folder.parent.glob(f".{revision}.*")) == [folder.parent / f".{revision}.lock"]


def test_a_disk_without_locks_is_used_without(bucket: Bucket, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.upload(tiny)

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    folder, _ = bucket.fetch()
    assert content(folder) == content(tiny)
    assert not list(folder.parent.glob("*.partial"))


def test_whoever_publishes_second_takes_what_the_first_published(tmp_path: Path) -> None:
    snapshots = Snapshots(str(tmp_path), "s3://bucket/model")
    with snapshots.claim("r1", lambda _: None) as claim:
        assert claim is not None
        claim.files.mkdir()
        (claim.files / "config.json").write_text("ours")
        theirs = claim.folder.parent / "r1"
        theirs.mkdir()
        (theirs / "config.json").write_text("theirs")
        assert snapshots.publish(claim, "r1") == theirs
        assert not claim.folder.exists()
    assert content(theirs) == {"config.json": b"theirs"}


def test_what_was_abandoned_is_removed_and_what_is_under_way_is_not(tmp_path: Path) -> None:
    first, second, third = (Snapshots(str(tmp_path), "s3://bucket/model") for _ in range(3))
    with first.claim("r1", lambda _: None):
        pass
    with second.claim("r2", lambda _: None), third.claim("r3", lambda _: None):
        left = {path.name for path in tmp_path.glob("*/*.partial")}
    assert left == {".r2.partial", ".r3.partial"}


def test_a_model_is_never_seen_half(bucket: Bucket, tiny: Path) -> None:
    bucket.upload(tiny)
    done, seen = threading.Event(), []

    def watch() -> None:
        while not done.is_set():
            seen.extend(content(folder) for folder in bucket.published())

    watcher = threading.Thread(target=watch)
    watcher.start()
    bucket.fetch()
    _wait(lambda: seen)
    done.set()
    watcher.join(20)
    assert all(model == content(tiny) for model in seen)


def _wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
