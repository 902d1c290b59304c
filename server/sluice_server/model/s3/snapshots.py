"""Downloaded models on disk: one folder for each content, whole or not there, also where many pods share the disk.

`<cache>/s3--<name>-<digest of the address>/` holds, for each revision:
    `<revision>/`            the model; it appears in one rename, so nobody ever sees half of it
    `.<revision>.partial/`   what is downloaded so far, and the journal; a later process goes on from there
    `.<revision>.lock`       held (flock) by the process that downloads; the kernel gives it back however that ends
A revision that was replaced in the store is kept: other pods may be serving it.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# A holder beats its heart every few seconds; network disks may show a file's time a minute late.
_STALLED_SECONDS = 180.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to download one revision.

    Attributes:
        folder: To work in; what an earlier process left is still in it.
        heartbeat: Tells those who wait that the work goes on; to be called every few seconds.
    """

    folder: Path
    heartbeat: Callable[[], None]

    @property
    def files(self) -> Path:
        """The model's files; becomes the published folder."""
        return self.folder / "files"

    @property
    def journal(self) -> Path:
        """Says which parts of the files are complete."""
        return self.folder / "journal"


class Snapshots:
    """The revisions of one model.

    Args:
        cache_dir: Shared by all models.
        uri: The model's address.
        stalled_seconds: How long a holder may be silent before others stop waiting for it.
    """

    def __init__(self, cache_dir: str, uri: str, stalled_seconds: float = _STALLED_SECONDS) -> None:
        readable = re.sub(r"[^A-Za-z0-9._-]", "-", uri.rstrip("/").rpartition("/")[2])[:40]
        self._folder = Path(cache_dir) / f"s3--{readable}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        self._stalled_seconds = stalled_seconds

    def find(self, revision: str) -> Path | None:
        """The published folder, if there is one."""
        folder = self._folder / revision
        return folder if folder.is_dir() else None

    @contextlib.contextmanager
    def claim(self, revision: str, on_wait: Callable[[float], None]) -> Iterator[Claim | None]:
        """Waits until nobody else downloads the revision; None when somebody published it meanwhile.

        A holder that stays silent, or a disk without locks, blocks nobody: the claim is then a folder of its own.

        Args:
            revision: To download.
            on_wait: Told now and then for how many seconds it has waited.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f".{revision}"
        descriptor = self._wait_for_lock(name, revision, on_wait)
        if self.find(revision) is None and descriptor is None:
            name = f".{revision}.{uuid.uuid4().hex[:8]}"
            descriptor = _try_lock(self._folder / f"{name}.lock")
        try:
            if self.find(revision) is not None:
                yield None
                return
            folder = self._folder / f"{name}.partial"
            self._remove_abandoned(besides=folder)
            folder.mkdir(exist_ok=True)
            yield Claim(folder, lambda: _touch(descriptor))
        finally:
            if name != f".{revision}":
                # Nobody can go on from a folder of our own.
                shutil.rmtree(self._folder / f"{name}.partial", ignore_errors=True)
                (self._folder / f"{name}.lock").unlink(missing_ok=True)
            if descriptor is not None:
                os.close(descriptor)

    def publish(self, claim: Claim, revision: str) -> Path:
        """Makes the claim's files the revision's folder, in one rename; if another process was first, takes its."""
        target = self._folder / revision
        for folder in (claim.files, *(path for path in claim.files.rglob("*") if path.is_dir())):
            _sync_folder(folder)
        try:
            claim.files.rename(target)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            logger.info("another process published %s first", target)
        _sync_folder(self._folder)
        shutil.rmtree(claim.folder, ignore_errors=True)
        return target

    def _wait_for_lock(self, name: str, revision: str, on_wait: Callable[[float], None]) -> int | None:
        """The lock's descriptor; None when the revision is published, the holder is silent, or there are no locks."""
        path = self._folder / f"{name}.lock"
        started = heard = time.monotonic()
        beat = None
        while self.find(revision) is None:
            try:
                if (descriptor := _lock(path)) is not None:
                    return descriptor
            except OSError as error:
                logger.warning("no locks under %s (%s): downloading without", self._folder, error)
                return None
            now = time.monotonic()
            if (seen := _modified(path)) != beat:
                beat, heard = seen, now
            if now - heard > self._stalled_seconds:
                logger.warning("the process that downloads %s is silent: downloading beside it", path)
                return None
            on_wait(now - started)
            time.sleep(_POLL_SECONDS)
        return None

    def _remove_abandoned(self, besides: Path) -> None:
        """Removes what processes left half done that ended, of revisions that nobody downloads any more."""
        for folder in self._folder.glob(".*.partial"):
            if folder == besides:
                continue
            descriptor = _try_lock(folder.with_suffix(".lock"))
            if descriptor is not None:
                logger.info("removing %s, an abandoned download", folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Takes the lock and returns its descriptor; None where another process holds it.

    Raises:
        OSError: The disk has no locks, or the file belongs to another user.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(path: Path) -> int | None:
    try:
        return _lock(path)
    except OSError:
        return None


def _touch(descriptor: int | None) -> None:
    if descriptor is not None:
        os.utime(descriptor)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a crash of the machine; some network disks cannot, and need not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
