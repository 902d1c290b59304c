"""Packed only where it gives what padded gives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sluice_server.backend import Batch, BatchOutput, ModelInfo
from sluice_server.errors import ModelLoadError
from sluice_server.model import layout
from sluice_server.model.similarity import lowest_cosine
from transformers import AutoModel

INFO = ModelInfo("m", None, 2, 64, 64, 100, "float32", "cpu", "padded", "mean", {})
ROWS = [np.arange(1, 5, dtype=np.int32), np.arange(5, 8, dtype=np.int32)]


@dataclass
class FakeBackend:
    """A row's embedding is its mean and its length; a leaking one sees the whole batch."""

    info: ModelInfo
    leaks: bool = False

    def embed(self, batch: Batch) -> BatchOutput:
        rows = np.split(batch.token_ids, np.cumsum(batch.lengths)[:-1])
        whole = batch.token_ids.mean() if self.leaks else 0.0
        pooled = np.array([[row.mean(), len(row) + whole] for row in rows], dtype=np.float32)
        return BatchOutput(pooled, batch.useful_tokens)

    @property
    def execution(self) -> str:
        return "eager"

    def fingerprint(self) -> str:
        return ""


def choose(wanted: str = "auto", device: str = "cpu", dtype: str = "float32", *, leaks: bool = False) -> str:
    return layout.choose(
        wanted, device, dtype, ROWS, lambda name: FakeBackend(replace(INFO, layout=name), leaks and name == "packed")
    )


def test_a_model_that_agrees_is_packed() -> None:
    assert choose() == "packed"


def test_a_model_whose_packed_rows_see_each_other_is_padded() -> None:
    assert choose(leaks=True) == "padded"


def test_asking_for_packed_in_vain_says_why() -> None:
    with pytest.raises(ModelLoadError, match="packed rows differ from padded ones"):
        choose("packed", leaks=True)


def test_padded_is_not_questioned() -> None:
    assert choose("padded") == "padded"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gpu_packs_what_agrees_in_half_precision(dtype: str) -> None:
    assert choose(device="cuda", dtype=dtype) == "packed"
    assert choose(device="cuda", dtype=dtype, leaks=True) == "padded"


def test_a_gpu_in_float32_is_padded_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert choose(device="cuda") == "padded"
    assert "a GPU's attention over packed rows takes bfloat16 or float16, not float32" in caplog.text


def test_asking_a_gpu_for_packed_float32_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"LAYOUT=packed: a GPU's attention .* expected padded, or auto"):
        choose("packed", device="cuda")


def test_a_model_that_raises_is_padded() -> None:
    def in_layout(name: str) -> FakeBackend:
        if name == "packed":
            raise ValueError("no such attention")
        return FakeBackend(INFO)

    assert layout.choose("auto", "cpu", "float32", ROWS, in_layout) == "padded"


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_rows_that_are_not_comparable_differ(value: float) -> None:
    rows = np.full((2, 3), value, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        assert not lowest_cosine(rows, np.ones_like(rows)) >= 0.5


@pytest.mark.parametrize(("family", "start"), [("bert", 0), ("roberta", 2), ("distilbert", 0), ("modernbert", 0)])
def test_where_positions_start_is_asked_of_the_model(
    family_folder: Callable[[str], Path], family: str, start: int
) -> None:
    model = AutoModel.from_pretrained(family_folder(family)).eval()
    assert layout.first_position(model) == start


def test_positions_that_start_elsewhere_are_refused(family_folder: Callable[[str], Path]) -> None:
    model = AutoModel.from_pretrained(family_folder("bert")).eval()
    model.embeddings.position_ids += 7
    with pytest.raises(ModelLoadError, match="neither at 0 nor behind its padding"):
        layout.first_position(model)
