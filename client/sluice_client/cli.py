"""`sluice-embed`: embeds a file of lines; prints JSON lines, or saves .npy or .jsonl. In bounded memory."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from sluice_client import arguments
from sluice_client.arguments import BAD_INPUT, INTERRUPTED, PIPE_CLOSED, REFUSED, TERMINATED
from sluice_client.errors import EmbeddingError, InvalidRequestError
from sluice_client.output import JsonLines, Sink, check_path, file_sink
from sluice_client.progress import Progress
from sluice_client.requests import EmbedOptions
from sluice_client.sync import EmbeddingClient


class BadInputError(Exception):
    """The input or the output file cannot be used; the text names it and says why."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, as --help tells them."""
    parser = arguments.parser()
    chosen = parser.parse_args(words)
    # So that a `kubectl delete pod` leaves no half file, either.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        return _run(parser, chosen)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> int:
    try:
        client, options = arguments.client(chosen), arguments.options(chosen)
        output = chosen.output and check_path(chosen.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        with client:
            _embed(client, options, chosen, output)
    except EmbeddingError as error:
        _say(f"{error}\nhint: {error.hint}{_lines_meant(error, chosen.file)}")
        return BAD_INPUT if isinstance(error, InvalidRequestError) else REFUSED
    except BrokenPipeError:
        # Python would complain once more when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (BadInputError, OSError) as error:
        _say(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        nothing = f"; nothing was written to {output}" if output else ""
        _say(f"interrupted{nothing}")
        return INTERRUPTED
    return 0


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _lines_meant(error: EmbeddingError, file: str) -> str:
    """Editors count lines from 1."""
    if not error.inputs:
        return ""
    first, last = error.inputs[0] + 1, error.inputs[-1] + 1
    return f" ({file}: {f'line {first}' if first == last else f'lines {first} to {last}'})"


def _embed(client: EmbeddingClient, options: EmbedOptions, chosen: argparse.Namespace, output: Path | None) -> None:
    """Asks first whether the service is there, so that a wrong address is told at once and not after a file's time."""
    with _opened(chosen.file) as source, _sink(output) as sink:
        dimension = client.info(deadline_seconds=chosen.connect_seconds).embedding_dimension
        shown = sys.stderr.isatty() and not chosen.quiet
        progress = Progress(sys.stderr, _count_lines(source) if shown else None, shown=shown)
        done = 0
        try:
            for embedded in client.embed_iter(_lines(source, chosen.file), options):
                sink.write(embedded)
                done += len(embedded.inputs)
                progress.update(done)
            sink.finish(np.empty((0, min(options.dimensions or dimension, dimension)), options.dtype))
        except BaseException:
            progress.clear()
            raise
        progress.finish(done)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise BadInputError(f"{file}: {error.strerror}") from error
    with stream:
        yield stream


def _sink(output: Path | None) -> contextlib.AbstractContextManager[Sink]:
    if output is not None:
        return file_sink(output)
    stdout: TextIO = sys.stdout
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(encoding="utf-8", newline="\n")
    return contextlib.nullcontext(JsonLines(stdout))


def _lines(source: BinaryIO, file: str) -> Iterator[str]:
    """Only a line feed ends a line: a text may hold any other separator that Unicode knows."""
    for number, line in enumerate(source, start=1):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise BadInputError(f"{file}: line {number} is not UTF-8: {error}") from error


def _count_lines(source: BinaryIO) -> int | None:
    """Of a file, in a first quick pass; None of what can be read only once."""
    if not source.seekable():
        return None
    start = source.tell()
    count, last = 0, b"\n"
    while chunk := source.read(1 << 20):
        count += chunk.count(b"\n")
        last = chunk[-1:]
    source.seek(start)
    return count + (last != b"\n")
