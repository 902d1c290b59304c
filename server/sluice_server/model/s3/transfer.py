"""Downloads objects into files: many ranges at once, each going on where it was broken off, then proves every file."""

import functools
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice_server.errors import ModelLoadError
from sluice_server.model.s3 import checksums
from sluice_server.model.s3.checksums import Check
from sluice_server.model.s3.errors import ReadInterruptedError
from sluice_server.model.s3.journal import Journal, Part
from sluice_server.model.s3.parallel import run_all
from sluice_server.model.s3.store import READ_TIMEOUT_SECONDS, Store, StoredObject

logger = logging.getLogger(__name__)

MIB = 1 << 20
# Without a single byte in between, on top of boto3's own for each request.
_FRUITLESS_TRIES = 5
_TRIES_OF_A_FILE = 2


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How hard to pull. One connection gives some 80 MB/s: it takes several to fill a network card.

    Attributes:
        part_bytes: Size of one range.
        threads: Ranges at once; each holds at most 1 MiB of memory.
    """

    part_bytes: int = 16 * MIB
    threads: int = 16


class Transfer:
    """One download of a model's objects.

    Args:
        store: Where they are.
        folder: Gets a file for each, under the object's name.
        journal: Of what is in the folder already.
        limits: How hard to pull.
        report: Told about once a second of how far it is, in a sentence.
    """

    def __init__(
        self, store: Store, folder: Path, journal: Journal, limits: TransferLimits, report: Callable[[str], None]
    ) -> None:
        self._store, self._folder, self._journal = store, folder, journal
        self._limits, self._report = limits, report
        self._stop = threading.Event()
        self._received = 0
        self._count_lock = threading.Lock()

    def run(self, objects: Sequence[StoredObject]) -> Counter[str]:
        """Downloads what is missing and proves every file; a damaged one is fetched once more.

        Returns:
            How many files were proved in which way.

        Raises:
            ModelLoadError: The store refuses or cannot be reached, the disk is full, a file is damaged again.
            ObjectChangedError: An object is not what was listed any more.
            OSError: The disk cannot be written.
        """
        proofs: Counter[str] = Counter()
        for tries_left in reversed(range(_TRIES_OF_A_FILE)):
            self._download(objects)
            damaged = self._prove(objects, proofs)
            for stored in damaged:
                self._journal.forget(stored)
                self._path(stored).unlink()
            if not damaged:
                break
            said = "; ".join(damaged.values())
            if not tries_left:
                raise ModelLoadError(
                    f"MODEL_PATH={self._store.uri}: damaged, and so again when fetched anew: {said}; upload it again"
                )
            logger.warning("fetching anew what arrived damaged: %s", said)
            objects = list(damaged)
        return proofs

    # --- download -------------------------------------------------------------------------------------

    def _download(self, objects: Sequence[StoredObject]) -> None:
        for stored in objects:
            self._prepare(stored)
        parts = [part for stored in objects for part in self._parts(stored)]
        missing = [part for part in parts if not self._journal.holds(part)]
        total, missing_bytes = sum(part.length for part in parts), sum(part.length for part in missing)
        self._need_room(missing_bytes)
        self._received = total - missing_bytes
        self._run([functools.partial(self._fetch, part) for part in missing], self._progress(total))

    def _progress(self, total: int) -> Callable[[], str]:
        told_at, told = time.monotonic(), self._received

        def sentence() -> str:
            nonlocal told_at, told
            now, received = time.monotonic(), self._received
            rate = (received - told) / MIB / max(now - told_at, 1e-3)
            told_at, told = now, received
            return f"{received / MIB:,.0f} of {total / MIB:,.0f} MiB, {rate:,.0f} MiB/s"

        return sentence

    def _prepare(self, stored: StoredObject) -> None:
        """A file of the full size; parts of one that is gone, or is of another size, do not count."""
        path = self._path(stored)
        if path.exists() and path.stat().st_size == stored.size:
            return
        self._journal.forget(stored)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(stored.size)
            os.fsync(file.fileno())

    def _parts(self, stored: StoredObject) -> list[Part]:
        step = self._limits.part_bytes
        return [Part(stored, offset, min(step, stored.size - offset)) for offset in range(0, stored.size, step)]

    def _need_room(self, needed: int) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if needed > free:
            raise ModelLoadError(
                f"MODEL_PATH={self._store.uri}: {needed / MIB:,.0f} MiB are still to come, and MODEL_CACHE_DIR has "
                f"room for {free / MIB:,.0f} MiB ({self._folder})"
            )

    def _fetch(self, part: Part) -> None:
        """Writes one range; it is safe on disk before the journal says so."""
        descriptor = os.open(self._path(part.stored), os.O_WRONLY | os.O_CLOEXEC)
        try:
            position, fruitless = part.offset, 0
            while position < part.end:
                try:
                    for chunk in self._store.read(part.stored, position, part.end - position):
                        if self._stop.is_set():
                            return
                        _write(descriptor, chunk, position)
                        position, fruitless = position + len(chunk), 0
                        self._count(len(chunk))
                except ReadInterruptedError as error:
                    fruitless += 1
                    self._pause(error, fruitless)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._journal.add(part)

    def _pause(self, error: ReadInterruptedError, fruitless: int) -> None:
        """Waits before the next try.

        Raises:
            ModelLoadError: That was the last one.
        """
        if fruitless == _FRUITLESS_TRIES:
            raise ModelLoadError(f"MODEL_PATH={self._store.uri}: {error}; gave up after {fruitless} tries") from error
        logger.warning("the download broke off and goes on: %s", error)
        self._stop.wait(2**fruitless * (0.1 + random.random() / 10))  # noqa: S311 - spreads tries, keeps no secret

    def _count(self, received: int) -> None:
        with self._count_lock:
            self._received += received

    # --- proof ----------------------------------------------------------------------------------------

    def _prove(self, objects: Sequence[StoredObject], proofs: Counter[str]) -> dict[StoredObject, str]:
        """Compares every file with what the store says of it; returns the damaged ones, each with a sentence."""
        found: list[tuple[StoredObject, Check, str]] = []

        def prove(stored: StoredObject) -> None:
            found.append((stored, *self._digest(stored)))

        self._run(
            [functools.partial(prove, stored) for stored in objects],
            lambda: f"checked {len(found)} of {len(objects)} files",
        )
        proofs.update(str(check) for _, check, digest in found if digest == check.expected)
        return {
            stored: f"{stored.name} has the {check} {digest}, expected {check.expected}"
            for stored, check, digest in found
            if digest != check.expected
        }

    def _digest(self, stored: StoredObject) -> tuple[Check, str]:
        """The best check there is, and the file's own digest in its terms."""
        check, path = checksums.choose(self._store.head(stored)), self._path(stored)
        if check.algorithm is None:
            return check, check.expected
        if check.parts is None:
            return check, checksums.digest(path, check.algorithm, None)
        first = self._store.part_size(stored, 1)
        if first is None:
            return checksums.LENGTH_ONLY, checksums.LENGTH_ONLY.expected
        sizes = checksums.even_parts(stored.size, first, check.parts)
        if sizes and (digest := checksums.digest(path, check.algorithm, sizes)) == check.expected:
            return check, digest
        # Hardly any upload has parts of different sizes; only then is the store asked for each.
        exact = [self._store.part_size(stored, number) or 0 for number in range(1, check.parts + 1)]
        return check, checksums.digest(path, check.algorithm, exact)

    # --- both -----------------------------------------------------------------------------------------

    def _run(self, tasks: Sequence[Callable[[], None]], sentence: Callable[[], str]) -> None:
        try:
            run_all(
                tasks, self._limits.threads, self._stop,
                lambda: self._report(f"{self._store.uri}: {sentence()}"),
                join_seconds=2 * READ_TIMEOUT_SECONDS,
            )  # fmt: skip
        except ReadInterruptedError as error:
            raise ModelLoadError(f"MODEL_PATH={self._store.uri}: {error}") from error

    def _path(self, stored: StoredObject) -> Path:
        return self._folder / stored.name


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of the data: a full disk may take a piece before it refuses."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
