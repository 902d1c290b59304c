"""`sluice-embed` as a shell runs it: its output, its files, its exit codes, and how it ends."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice_client import EmbeddingClient

from tests.client.conftest import Script, numbers, wait_for
from tests.server.conftest import RunningServer

COMMAND = [sys.executable, "-m", "sluice_client"]
LINES = [
    "plain words",
    "",
    "Grüße, 世界",
    "a\u2028separator and a\x0cform feed",
    "carriage return\r",
    '"quoted" \\ text',
]
# What a text is: a line without its end.
TEXTS = [line.removesuffix("\r") for line in LINES]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_bytes("\n".join(LINES).encode())
    return path


@pytest.fixture(scope="module")
def expected(minilm: RunningServer) -> np.ndarray:
    with EmbeddingClient(minilm.grpc_target) as client:
        return client.embed(TEXTS)


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, timeout=60, check=False, env=quiet_grpc(), **options
    )


def quiet_grpc() -> dict[str, str]:
    """gRPC itself tells on standard error that the scripted server has no health service."""
    return {**os.environ, "GRPC_VERBOSITY": "NONE"}


def test_lines_become_json_lines(minilm: RunningServer, lines: Path, expected: np.ndarray) -> None:
    done = run(minilm.grpc_target, lines)
    assert (done.returncode, done.stderr) == (0, b"")
    records = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert [record["text"] for record in records] == TEXTS
    assert np.allclose([record["embedding"] for record in records], expected, atol=1e-5)


def test_standard_input_becomes_an_array_file(
    minilm: RunningServer, lines: Path, tmp_path: Path, expected: Any
) -> None:
    output = tmp_path / "rows.npy"
    done = run(minilm.grpc_target, "-", "-o", output, "--dtype", "float16", input=lines.read_bytes())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    rows = np.load(output)
    assert (rows.dtype, rows.shape) == (np.float16, (len(LINES), 384))
    assert np.allclose(rows, expected, atol=1e-3)


def test_a_json_lines_file_and_the_options_of_the_embeddings(
    minilm: RunningServer, lines: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    words = ("--dimensions", 8, "--no-normalize", "--priority", "interactive", "--truncate", "start")
    assert run(minilm.grpc_target, lines, "-o", output, *words).returncode == 0
    records = [json.loads(line) for line in output.read_text("utf-8").split("\n")[:-1]]
    assert [len(record["embedding"]) for record in records] == [8] * len(LINES)


def test_no_lines_are_an_empty_array(minilm: RunningServer, tmp_path: Path) -> None:
    assert run(minilm.grpc_target, "-", "-o", tmp_path / "rows.npy", input=b"").returncode == 0
    assert np.load(tmp_path / "rows.npy").shape == (0, 384)


def test_a_terminal_sees_the_progress(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(numbers(20)))
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, script.target, path, "-o", tmp_path / "rows.npy"],
            stderr=follower, timeout=60, check=False, env=quiet_grpc(),
        )  # fmt: skip
        shown = os.read(leader, 10_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 0
    assert "[##############################] 20/20" in shown
    assert shown.endswith("\r\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{target}", "no-such-file"), "no-such-file: No such file or directory"),
        (("{target}", "{lines}", "-o", "rows.txt"), "expected a name that ends in .npy or .jsonl"),
        (("{target}", "{lines}", "-o", "no/folder/rows.npy"), "there is no folder"),
        (("http://minilm:8001", "{lines}"), "target 'http://minilm:8001': expected an address with its port"),
        (("{target}", "{lines}", "--dimensions", "0"), "dimensions=0: expected at least 1"),
        (("{target}", "{lines}", "--deadline-seconds", "0"), "deadline_seconds=0.0: expected more than 0"),
        (("{target}", "{lines}", "--connect-seconds", "-1"), "--connect-seconds -1.0: expected more than 0"),
        (("{target}", "{lines}", "--ca", "no.pem"), "no.pem"),
        (("{target}", "{lines}", "--key", "{lines}"), "private_key and certificate_chain: expected both or neither"),
    ],
)
def test_what_is_asked_wrongly_is_told_and_ends_with_2(
    script: Script, lines: Path, words: tuple[str, ...], said: str
) -> None:
    done = run(*(word.format(target=script.target, lines=lines) for word in words))
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.returncode == 2
    assert not script.seen


def test_a_line_that_is_not_text_is_told_by_its_number(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"1\n2\n\xff\xfe\n4\n")
    done = run(script.target, path, "-o", tmp_path / "rows.npy")
    assert f"{path}: line 3 is not UTF-8".encode() in done.stderr
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == [path]


def test_an_option_that_the_model_does_not_know_ends_with_2_and_names_the_lines(
    minilm: RunningServer, lines: Path
) -> None:
    done = run(minilm.grpc_target, lines, "--prompt-name", "query")
    assert f"{minilm.grpc_target}: INVALID_ARGUMENT after 1 attempt" in done.stderr.decode()
    assert f"({lines}: lines 1 to 6)" in done.stderr.decode()
    assert done.returncode == 2


def test_a_service_that_is_not_there_ends_with_1_and_says_what_to_do(lines: Path) -> None:
    done = run("127.0.0.1:1", lines, "--connect-seconds", "0.5")
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith("127.0.0.1:1: UNAVAILABLE after 1 attempt: no server was reached within 0.5 s: ")
    assert error.endswith("Connection refused")
    assert hint == "hint: check the address, and with `kubectl get embeddingservices` that the service is Ready"
    assert done.returncode == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A test run in a shell's background ignores SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def under_way(
    script: Script,
    lines: Path,
    tmp_path: Path,
    interruptible: None,
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A command that waits for a server which never answers, and its output file."""
    script.behave = lambda _texts, _before, context: script.block_until_the_caller_leaves(context)
    output = tmp_path / "rows.npy"
    with subprocess.Popen(
        [*COMMAND, script.target, lines, "-o", output], stderr=subprocess.PIPE, env=quiet_grpc()
    ) as process:
        wait_for(lambda: bool(script.seen), "the request is under way")
        yield process, output
        process.kill()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted; nothing was written to {output}\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_it_cleanly_and_leaves_no_file(
    under_way: tuple[subprocess.Popen[bytes], Path], script: Script, number: int, code: int, said: str
) -> None:
    process, output = under_way
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.decode()) == (code, said.format(output=output))
    assert [path.name for path in output.parent.iterdir()] == ["lines.txt"]
    assert script.cancelled.acquire(timeout=10)


def test_a_reader_that_leaves_ends_it_quietly(script: Script, tmp_path: Path) -> None:
    """As `| head -n 1` does: the output is more than a pipe holds."""
    script.info.max_inputs_per_request = 64
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(numbers(5000)))
    with subprocess.Popen(
        [*COMMAND, script.target, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=quiet_grpc()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "0"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


MEASURED = """
import resource, sys
from sluice_client.cli import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_memory_does_not_grow_with_the_file(script: Script, tmp_path: Path, suffix: str) -> None:
    script.info.max_inputs_per_request = 64
    script.info.max_tokens_per_request = 1_000_000
    mib = []
    for count in (200, 20_000):
        path = tmp_path / f"{count}.txt"
        with path.open("w") as file:
            file.writelines(f"{number}{' ' * 2000}\n" for number in range(count))
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, script.target, path, "-o", tmp_path / f"rows{suffix}"],
            capture_output=True, timeout=100, check=True, text=True, env=quiet_grpc(),
        )  # fmt: skip
        mib.append(int(done.stdout) / 1024)
    # The file has grown by 38 MiB.
    assert mib[1] - mib[0] < 15


def test_help_tells_every_exit_code() -> None:
    text = run("--help").stdout.decode()
    for code in (0, 1, 2, 130, 141, 143):
        assert f"\n  {code:<4} " in text
