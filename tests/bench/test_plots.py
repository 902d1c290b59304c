"""Every part of a run has its place on the page and in the pictures."""

from pathlib import Path

from bench import plots, report, roster
from tests.bench.builders import cell, result, turn

NATIVE, CORAL = roster.NATIVE, roster.CORAL
OPEN = cell(
    "open",
    turn(NATIVE, 0, 100, in_time=80),
    turn(CORAL, 0, 50, in_time=20, codes={"OK": 50, "DEADLINE_EXCEEDED": 50}),
    per_second=50.0,
    deadline_seconds=0.25,
    load=1.0,
)
GROWTH = [cell("texts", turn(NATIVE, 0, 100, rss_mib=900), turn(CORAL, 0, 50), texts=texts) for texts in (1, 512)]
OFFLINE = cell("offline", turn(roster.COMPILED, 0, 100, latencies_ms=None), turn("OpenVINO bfloat16", 0, 50))


def test_goodput_stands_beside_the_load_that_was_offered() -> None:
    page = report.document(result(OPEN))
    assert "| products | 50 | 1 | Sluice | 40 (40 to 40) |" in page
    assert "| products | 50 | 1 | coral bfloat16 | 10 (10 to 10) |" in page
    assert "DEADLINE_EXCEEDED 50.0%" in page


def test_growth_stands_beside_its_first_step() -> None:
    assert "| 512 | 100 | 1.00 (1.00 to 1.00) | 900 | 0 |" in report.document(result(*GROWTH))


def test_a_picture_is_drawn_and_shown_of_what_was_measured(tmp_path: Path) -> None:
    file = result(OPEN, *GROWTH, OFFLINE)
    plots.draw(file, tmp_path)
    page = report.document(file, "results/")
    for name in ("throughput.svg", "goodput.svg", "growth.svg"):
        assert (tmp_path / name).stat().st_size > 0
        assert f"(results/{name})" in page


def test_nothing_is_drawn_or_shown_of_what_was_not_measured(tmp_path: Path) -> None:
    plots.draw(result(OFFLINE), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["throughput.svg"]
    assert "goodput.svg" not in report.document(result(OFFLINE))
