"""Where embeddings go: JSON lines to a stream, or a .npy or .jsonl file that appears only once it is whole."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sluice_client.results import Embedded

SUFFIXES = (".npy", ".jsonl")


class Sink(Protocol):
    """Takes runs of rows in order."""

    def write(self, embedded: Embedded) -> None:
        """The next run."""

    def finish(self, empty: NDArray[np.generic]) -> None:
        """No more; empty is what an input of no lines becomes: (0, dimensions) of the dtype."""


class JsonLines:
    """One object a line: the text and its embedding, each number in as few digits as tell it apart.

    Args:
        stream: Of text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, embedded: Embedded) -> None:
        """The next run."""
        digits = embedded.embeddings.astype(str)
        self._stream.writelines(
            f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{", ".join(row)}]}}\n'
            for text, row in zip(cast("tuple[str, ...]", embedded.inputs), digits, strict=True)
        )
        # Whoever reads a pipe sees each run at once.
        self._stream.flush()

    def finish(self, empty: NDArray[np.generic]) -> None:
        """Nothing stands at the end."""


class Npy:
    """One array, appended as it comes; its header is written again once the number of rows is known.

    Args:
        stream: A file that can seek.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._rows = 0
        self._one: NDArray[np.generic] | None = None

    def write(self, embedded: Embedded) -> None:
        """The next run.

        Raises:
            ValueError: Its rows are of another length than the ones before.
        """
        rows = embedded.embeddings
        if self._one is None:
            self._one = rows[:0]
            self._write_header()
        if rows.shape[1] != self._one.shape[1]:
            raise ValueError(
                f"answers of {self._one.shape[1]} and of {rows.shape[1]} dimensions: "
                "the service changed its model meanwhile; embed again"
            )
        self._stream.write(rows.tobytes())
        self._rows += len(rows)

    def finish(self, empty: NDArray[np.generic]) -> None:
        """The header, with the number of rows."""
        if self._one is None:
            self._one = empty
        self._stream.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        assert self._one is not None, "the first run tells dtype and dimensions"
        # numpy leaves room in the header for a first axis of any length, so that it can grow in place.
        npy.write_array_header_1_0(
            self._stream,
            {
                "descr": npy.dtype_to_descr(self._one.dtype),
                "fortran_order": False,
                "shape": (self._rows, self._one.shape[1]),
            },
        )


def check_path(path: Path) -> Path:
    """The file that a name stands for, behind links.

    Raises:
        ValueError: Another suffix, a folder that is not there, or something else than a file.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    path = path.resolve()
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is there already and is not a file")
    return path


@contextlib.contextmanager
def file_sink(path: Path) -> Iterator[Sink]:
    """A sink whose file takes its name when the block ends without an error; else nothing stays.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    # Beside the file, so that the rename stays on its disk; made anew, with the permissions that it will have.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if path.suffix == ".npy":
            with os.fdopen(descriptor, "wb") as binary:
                yield Npy(binary)
                _sync(binary)
        else:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as text:
                yield JsonLines(text)
                _sync(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(stream: BinaryIO | TextIO) -> None:
    """A name never stands for a file that a crash could still empty."""
    stream.flush()
    os.fsync(stream.fileno())
