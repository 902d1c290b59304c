"""`sluice-embed`: embeds a file of lines; prints JSON lines, or saves .npy or .jsonl."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sluice_client.channel import ChannelOptions
from sluice_client.errors import EmbeddingError
from sluice_client.requests import EmbedOptions
from sluice_client.sync import EmbeddingClient

Rows = NDArray[np.generic]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 when the service refused for good, 2 when the input is bad."""
    options = _parser().parse_args(arguments)
    try:
        lines = _read_lines(options.file)
    except (OSError, UnicodeDecodeError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    if not lines:
        print(f"{options.file}: holds no lines; expected one text per line", file=sys.stderr)
        return 2
    try:
        with _client(options) as client, _sink(options.output, lines) as write:
            wanted = EmbedOptions(
                prompt_name=options.prompt_name, dimensions=options.dimensions, priority=options.priority
            )
            done = 0
            for rows in client.embed_parts(lines, wanted):
                write(rows)
                done += len(rows)
                _progress(done, len(lines))
    except EmbeddingError as error:
        print(f"\n{options.target}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sluice-embed", description="Embed a file of lines, one text per line.")
    parser.add_argument("target", help="for example dns:///minilm-headless:50051")
    parser.add_argument("file", help="the texts; - reads standard input")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="where to save: .npy (one array) or .jsonl; default: JSON lines to standard output",
    )
    parser.add_argument("--prompt-name", help="one of the model's own prompts, put before each text")
    parser.add_argument("--dimensions", type=int, help="keep only the first so many dimensions")
    parser.add_argument("--priority", choices=["interactive", "batch"], default="batch", help="default: batch")
    parser.add_argument("--deadline-seconds", type=float, default=3600, help="for the whole file; default: 3600")
    parser.add_argument("--ca", type=Path, help="PEM file of the authority that signed the server's certificate")
    parser.add_argument(
        "--token-env",
        default="SLUICE_TOKEN",
        help="variable that holds the bearer token; default: SLUICE_TOKEN",
    )
    return parser


def _read_lines(file: str) -> list[str]:
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    return text.splitlines()


def _client(options: argparse.Namespace) -> EmbeddingClient:
    channel = ChannelOptions(
        root_certificates=options.ca.read_bytes() if options.ca else None,
        bearer_token=os.environ.get(options.token_env),
    )
    return EmbeddingClient(options.target, channel_options=channel, deadline_seconds=options.deadline_seconds)


@contextlib.contextmanager
def _sink(output: Path | None, lines: list[str]) -> Iterator[Callable[[Rows], None]]:
    """Where rows go; a .npy file appears only once it is whole."""
    if output is not None and output.suffix == ".npy":
        parts: list[Rows] = []
        yield parts.append
        np.save(output, np.concatenate(parts))
        return
    remaining = iter(lines)
    with contextlib.nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8") as stream:

        def write(rows: Rows) -> None:
            for row in rows:
                stream.write(json.dumps({"text": next(remaining), "embedding": row.tolist()}) + "\n")

        yield write


def _progress(done: int, total: int) -> None:
    """One line that grows, on a terminal only."""
    if sys.stderr.isatty():
        filled = 30 * done // total
        end = "\n" if done == total else ""
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
