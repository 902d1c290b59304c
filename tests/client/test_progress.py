"""The line that tells how far the command is."""

import io

import pytest
from sluice_client.progress import Progress, line


@pytest.mark.parametrize(
    ("done", "total", "seconds", "shown"),
    [
        (0, 100, 0.0, "[..............................] 0/100, 0/s"),
        (50, 100, 10.0, "[###############...............] 50/100, 5/s, 0:10 left"),
        (100, 100, 10.0, "[##############################] 100/100, 10/s"),
        (10, 100_000, 10.0, "[..............................] 10/100000, 1/s, 27:46:30 left"),
        (0, 0, 1.0, "[..............................] 0/0, 0/s"),
        (70, None, 10.0, "70 inputs, 7/s"),
    ],
)
def test_it_shows_what_is_done_how_fast_and_what_is_left(
    done: int, total: int | None, seconds: float, shown: str
) -> None:
    assert line(done, total, seconds) == shown


def test_it_draws_nothing_where_nobody_looks() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 10, shown=False)
    progress.update(5)
    progress.clear()
    progress.finish(10)
    assert stream.getvalue() == ""


def test_it_draws_over_itself_and_ends_with_its_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 10, shown=True)
    for done in range(10):
        progress.update(done)
    progress.finish(10)
    drawn = stream.getvalue()
    assert "\n" not in drawn[:-1]
    assert drawn.endswith("/s\n")
    # Ten updates in one moment are drawn once.
    assert drawn.count("\r") == 2
