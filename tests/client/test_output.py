"""What the command writes: arrays that grow in place, lines of JSON, and files that appear whole or not at all."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_client import Embedded
from sluice_client.output import JsonLines, Npy, check_path, file_sink

EMPTY = np.empty((0, 3), dtype=np.float32)


def run(rows: np.ndarray, texts: tuple[str, ...] | None = None, first: int = 0) -> Embedded:
    return Embedded(texts or tuple(f"text {n}" for n in range(len(rows))), rows, first, (), 0)


@given(
    counts=st.lists(st.integers(1, 50), max_size=8),
    columns=st.integers(1, 7),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
)
def test_an_array_that_grows_run_by_run_is_the_array_that_numpy_saves(
    counts: list[int], columns: int, dtype: str
) -> None:
    parts = [(np.arange(n * columns).reshape(n, columns) % 100).astype(dtype) for n in counts]
    stream = io.BytesIO()
    sink = Npy(stream)
    for part in parts:
        sink.write(run(part))
    empty = np.empty((0, columns), dtype)
    sink.finish(empty)
    expected = io.BytesIO()
    np.save(expected, np.concatenate([empty, *parts]))
    assert stream.getvalue() == expected.getvalue()


def test_rows_of_another_length_do_not_become_one_array() -> None:
    sink = Npy(io.BytesIO())
    sink.write(run(np.zeros((2, 3), dtype="<f4")))
    with pytest.raises(ValueError, match="answers of 3 and of 4 dimensions"):
        sink.write(run(np.zeros((2, 4), dtype="<f4")))


@given(rows=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), text=st.text(st.characters(codec="utf-8")))
def test_a_line_of_json_gives_text_and_numbers_back_exactly(rows: list[float], text: str) -> None:
    stream = io.StringIO()
    sink = JsonLines(stream)
    sink.write(run(np.array([rows], dtype="<f4"), (text,)))
    sink.finish(EMPTY)
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    record = json.loads(line)
    assert record["text"] == text
    assert np.array_equal(np.array(record["embedding"], dtype="<f4"), np.array(rows, dtype="<f4"))


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("what was there before")
    with file_sink(path) as sink:
        sink.write(run(np.ones((2, 3), dtype="<f4")))
        assert path.read_text() == "what was there before"
        sink.finish(EMPTY)
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() != b"what was there before"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_failure_leaves_what_was_there_before(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "rows.npy"
    path.write_text("what was there before")

    def fail_in_the_middle() -> None:
        with file_sink(path) as sink:
            sink.write(run(np.ones((2, 3), dtype="<f4")))
            raise failure

    with pytest.raises(failure):
        fail_in_the_middle()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "what was there before"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to(tmp_path / "rows.npy")
    assert check_path(tmp_path / "link.npy") == tmp_path / "rows.npy"


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "rows.txt", r"expected a name that ends in \.npy or \.jsonl"),
        (tmp_path / "no" / "rows.npy", "there is no folder"),
    ):
        with pytest.raises(ValueError, match=said):
            check_path(path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match="is there already and is not a file"):
        check_path(tmp_path / "folder.npy")


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
