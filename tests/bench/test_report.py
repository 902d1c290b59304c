"""The page of results says what the results file says, losses first of all."""

from bench import report, roster, targets
from bench.rounds import Spread
from tests.bench.builders import cell, result, turn

NATIVE, CORAL = roster.NATIVE, roster.CORAL
FASTER = cell("ids-1", turn(NATIVE, 0, 3000), turn(CORAL, 0, 1000), turn(CORAL, 1, 1000), turn(NATIVE, 1, 2000))
SLOWER = cell("ids-1", turn(NATIVE, 0, 900), turn(CORAL, 0, 1000))


def row(page: str, start: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {start} |")]
    return [value.strip() for value in line.strip("|").split("|")]


def test_a_peers_line_shows_how_much_faster_sluice_is() -> None:
    page = report.document(result(FASTER))
    table = page[page.index("## 32 clients") :]
    assert row(table, CORAL)[1:4] == ["2.50 (2.00 to 3.00)", "1,000", "50"]


def test_a_peer_that_is_faster_is_bold() -> None:
    page = report.document(result(SLOWER))
    assert row(page[page.index("## 32 clients") :], CORAL)[1] == "**0.90 (0.90 to 0.90)**"


def test_a_missed_target_is_bold_a_reached_one_is_not_and_an_unmeasured_one_is_said_so() -> None:
    page = report.document(result(SLOWER))
    assert row(page, f"tokens/s, products: Sluice ÷ {CORAL}")[-1] == "**missed**"
    assert row(page, f"P99, products: Sluice ÷ {CORAL}")[-1] == "reached"
    assert row(page, f"tokens/s, passages: Sluice ÷ {CORAL}")[-1] == "not measured"


def test_what_the_padded_layout_computes_is_said_beside_naive_batching() -> None:
    page = report.document(result(cell("ids-1", turn(roster.PADDED, 0, 500, padding=1.234), turn(NATIVE, 0, 900))))
    assert "with 32 clients: products 1.23." in " ".join(page.split())
    assert "padded layout, with" not in report.document(result(FASTER))


def test_who_is_absent_is_named_with_the_reason() -> None:
    page = report.document(result(FASTER, absent={"text-embeddings-inference": "TEI_URL is not set"}))
    assert "- text-embeddings-inference: TEI_URL is not set" in page


def test_the_same_file_makes_the_same_page() -> None:
    assert report.document(result(FASTER)) == report.document(result(FASTER))


def test_an_engine_is_compared_with_the_fastest_that_is_as_faithful() -> None:
    names = (roster.COMPILED_FLOAT32, "ONNX Runtime float32", "ONNX Runtime int8", "OpenVINO float32")
    speeds = zip(names, (1000, 900, 3000, 1100), strict=True)
    offline = cell("offline", *(turn(name, 0, speed) for name, speed in speeds))
    cosines = dict(zip(names, (1.0, 1.0, 0.98, 0.999999), strict=True))
    found = [one for one in targets.targets(result(offline, cosines=cosines)) if one.text.startswith("offline")]
    assert [(one.text.split("÷ ")[1].split(",")[0], one.reached) for one in found] == [("OpenVINO float32", False)]


def test_growth_is_measured_against_the_first_step_of_the_same_round() -> None:
    steps = [
        cell("clients", turn(NATIVE, 0, 1000), turn(NATIVE, 1, 500), clients=32),
        cell("clients", turn(NATIVE, 0, 950), turn(NATIVE, 1, 500), clients=1000),
    ]
    (found,) = [one for one in targets.targets(result(*steps)) if "1000 clients" in one.text]
    assert (found.seen, found.reached) == (Spread(0.975, 0.95, 1.0), True)


def test_one_clients_wait_beyond_the_bare_forward_is_taken_round_by_round() -> None:
    alone = cell(
        "alone",
        turn(NATIVE, 0, 10, latencies_ms=(5.0, 6.0, 7.0)),
        turn(NATIVE, 1, 10, latencies_ms=(8.0, 9.0, 9.0)),
        clients=1,
    )
    file = result(alone, bare_forward_ms={roster.COMPILED: [4.0, 6.0]})
    (found,) = [one for one in targets.targets(file) if one.text.startswith("1 client")]
    assert (found.seen, found.reached) == (Spread(1.5, 1.0, 2.0), True)
