"""How many front ends there are where nobody says."""

from pathlib import Path

import pytest
from sluice_server.frontends import sizing
from sluice_server.frontends.sizing import front_end_count, takes_gpu


def test_a_cpu_has_none_as_its_cores_are_the_device() -> None:
    assert front_end_count("auto", on_gpu=False, cpus=64) == 0


@pytest.mark.parametrize(("cpus", "count"), [(1, 0), (2, 0), (3, 1), (8, 2), (12, 4), (16, 4), (128, 4)])
def test_beside_a_gpu_they_are_as_many_as_the_cores_allow_and_the_main_process_can_use(cpus: int, count: int) -> None:
    assert front_end_count("auto", on_gpu=True, cpus=cpus) == count


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("wanted", [0, 1, 9])
def test_who_says_a_number_gets_it(wanted: int, on_gpu: bool) -> None:
    assert front_end_count(wanted, on_gpu=on_gpu, cpus=2) == wanted


@pytest.mark.parametrize(
    ("device", "has_driver", "takes"),
    [("cuda", False, True), ("auto", True, True), ("auto", False, False), ("cpu", True, False)],
)
def test_a_gpu_is_known_by_its_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, has_driver: bool, takes: bool
) -> None:
    driver = tmp_path / "nvidiactl"
    if has_driver:
        driver.touch()
    monkeypatch.setattr(sizing, "_NVIDIA_DRIVER", driver)
    assert takes_gpu(device) == takes
