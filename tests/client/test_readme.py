"""The README's examples, run as they stand against a live server; only the address is another."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.server.conftest import RunningServer

README = (Path(__file__).parents[2] / "client" / "README.md").read_text("utf-8")
ADDRESS = "dns:///minilm-headless:50051"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(5))
def test_an_example_runs_as_it_stands(minilm: RunningServer, number: int) -> None:
    code = blocks("python")[number]
    assert ADDRESS in code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(ADDRESS, minilm.grpc_target)],
        capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_example_is_left_out() -> None:
    assert len(blocks("python")) == 5
    assert README.count("```") == 2 * (5 + len(blocks("sh")))


def test_the_shell_lines_run_as_they_stand(minilm: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"text number {n}\n" for n in range(9)))
    (script,) = blocks("sh")
    commands = script.replace(ADDRESS, minilm.grpc_target).replace("sluice-embed", f"{sys.executable} -m sluice_client")
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, capture_output=True, timeout=60, check=False, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    assert np.load(tmp_path / "rows.npy").shape == (9, 384)
