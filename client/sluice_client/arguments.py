"""The command line of `sluice-embed`: its options, its exit codes, and what they make of a client."""

import argparse
import os
from pathlib import Path

from sluice_client.channel import ChannelOptions
from sluice_client.requests import EmbedOptions
from sluice_client.sync import EmbeddingClient

REFUSED, BAD_INPUT, INTERRUPTED, TERMINATED, PIPE_CLOSED = 1, 2, 130, 143, 141
_EPILOG = """\
exit codes:
  0    every line was embedded
  1    the service refused for good, or did not answer in time
  2    the command line, the input or the output file is bad, or the model knows no such option
  130  interrupted (Ctrl-C)
  141  whoever read the output stopped reading
  143  terminated (SIGTERM)
An output file appears only with exit code 0; one that was there before is replaced only then.

examples:
  sluice-embed dns:///minilm-headless:50051 lines.txt -o rows.npy
  zcat lines.gz | sluice-embed dns:///minilm-headless:50051 - | gzip > rows.jsonl.gz
"""


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        "sluice-embed",
        description="Embed a file of lines, one text per line, over all pods of a Sluice service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("target", help="address of the service, for example dns:///minilm-headless:50051")
    add("file", help="the texts in UTF-8, one a line, empty ones included; - reads standard input")
    add("-o", "--output", type=Path, metavar="FILE",
        help="save to FILE.npy (a row per line) or FILE.jsonl; default: JSON lines to standard output")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress bar; there is none without a terminal, either")

    embedding = made.add_argument_group("the embeddings")
    add = embedding.add_argument
    add("--prompt-name", help="one of the model's own prompts, put before each text; '' puts nothing there")
    add("--truncate", choices=["end", "start", "none"], default="end",
        help="what a text too long for the model loses; none refuses it; default: end")  # fmt: skip
    add("--dimensions", type=int, help="keep only the first so many dimensions")
    add("--no-normalize", action="store_true", help="rows as the model makes them, not of unit length")
    add("--dtype", choices=["float32", "float16", "int8"], default="float32", help="default: float32")
    add("--priority", choices=["interactive", "batch"], default="batch",
        help="batch gives way to interactive callers; default: batch")  # fmt: skip

    patience = made.add_argument_group("patience and pace")
    add = patience.add_argument
    add("--connect-seconds", type=float, default=15.0, metavar="S",
        help="give up when the service is not reached within so many seconds; default: 15")  # fmt: skip
    add("--deadline-seconds", type=float, default=300.0, metavar="S",
        help="give up when one request is not answered within so many, retries included; default: 300")  # fmt: skip
    add("--max-in-flight", type=int, default=8, metavar="N", help="requests under way at once; default: 8")

    security = made.add_argument_group("TLS and token")
    add = security.add_argument
    add("--tls", action="store_true", help="speak TLS and trust the well-known authorities")
    add("--ca", type=Path, metavar="PEM", help="speak TLS and trust this authority")
    add("--cert", type=Path, metavar="PEM", help="the client's certificate, for mutual TLS; with --key")
    add("--key", type=Path, metavar="PEM", help="the client's private key; with --cert")
    add("--server-name", metavar="NAME", help="the name in the server's certificate; default: the target's")
    add("--token-env", default="SLUICE_TOKEN", metavar="NAME",
        help="environment variable that holds the bearer token; default: SLUICE_TOKEN")  # fmt: skip
    return made


def client(chosen: argparse.Namespace) -> EmbeddingClient:
    """As chosen.

    Raises:
        OSError: A PEM file cannot be read.
        ValueError: A value that cannot work.
    """
    if chosen.connect_seconds <= 0:
        raise ValueError(f"--connect-seconds {chosen.connect_seconds}: expected more than 0")

    def read(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    channel = ChannelOptions(
        root_certificates=read(chosen.ca),
        private_key=read(chosen.key),
        certificate_chain=read(chosen.cert),
        bearer_token=os.environ.get(chosen.token_env),
        tls=chosen.tls,
        server_name=chosen.server_name,
    )
    return EmbeddingClient(
        chosen.target,
        channel_options=channel,
        deadline_seconds=chosen.deadline_seconds,
        max_in_flight=chosen.max_in_flight,
    )


def options(chosen: argparse.Namespace) -> EmbedOptions:
    """As chosen.

    Raises:
        ValueError: A value that cannot work.
    """
    return EmbedOptions(
        prompt_name=chosen.prompt_name,
        truncate=chosen.truncate,
        dimensions=chosen.dimensions,
        normalize=not chosen.no_normalize,
        output_dtype=chosen.dtype,
        priority=chosen.priority,
    )
