"""What the page of a run on a GPU says."""

from bench.gpu.report import Figures, Result, page


def figures(name: str, rates: list[float], device_seconds: float | None = None, length: int = 128) -> Figures:
    return Figures(name, length, 8960, rates, device_seconds, 0.9999)


def told(*made: Figures, absent: dict[str, str] | None = None) -> str:
    return page(Result("a GPU", "2.11", 800.0, 4.2, made, {"Sluice": 17.6}, absent or {}))


def test_ratios_are_taken_within_rounds_and_losses_are_bold() -> None:
    text = told(figures("Sluice", [1.0e6, 2.0e6, 3.0e6]), figures("it", [2.0e6, 2.5e6, 6.0e6]))
    assert "| it | 2.50 | **0.50 (0.50 to 0.80)** | 0.9999 |" in text
    assert "| Sluice | 2.00 | 1.00 (1.00 to 1.00) | 0.9999 |" in text


def test_the_gap_is_the_time_without_kernels_and_mfu_counts_the_models_flops() -> None:
    # 8,960 tokens in 10 ms, 8 of which the device computes; 228 MFLOP a token are 204 TFLOP/s.
    text = told(figures("Sluice", [0.896e6] * 3, device_seconds=0.008))
    assert "| Sluice | 128 | 0.90 | 20.7% | 25.5% | 0.50 | 20.0% |" in text


def test_who_is_absent_is_said_with_the_reason() -> None:
    text = told(figures("Sluice", [1e6] * 3), absent={"it": "ImportError: no module"})
    assert "- it: ImportError: no module" in text
    assert "Absent" not in told(figures("Sluice", [1e6] * 3))
