"""Which parts of a download are safe on disk, so that a killed process's successor fetches only the others."""

import contextlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sluice_server.model.s3.store import StoredObject


@dataclass(frozen=True, slots=True)
class Part:
    """One range of one object, in bytes."""

    stored: StoredObject
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


class Journal:
    """A file with one JSON line for each complete part, written after the part's data.

    A line that a crash cut short counts for nothing: its part is fetched again.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._complete: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, TypeError):
                self._note(*json.loads(line))
        self._file = path.open("ab", buffering=0)
        # Whatever was cut short, the next line begins on its own.
        self._file.write(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def holds(self, part: Part) -> bool:
        """Whether the part is complete."""
        return (part.offset, part.length) in self._complete.get(part.stored.name, ())

    def add(self, part: Part) -> None:
        """Notes a part whose data is safe on disk."""
        self._write(part.stored.name, part.offset, part.length)

    def forget(self, stored: StoredObject) -> None:
        """Notes that nothing of an object counts any more."""
        self._write(stored.name, 0, 0)

    def _write(self, name: str, offset: int, length: int) -> None:
        with self._lock:
            self._file.write(json.dumps([name, offset, length]).encode() + b"\n")
            self._note(name, offset, length)

    def _note(self, name: str, offset: int, length: int) -> None:
        if length:
            self._complete[name].add((offset, length))
        else:
            self._complete.pop(name, None)
