"""One model, one fingerprint, however it is served."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sluice_server.model.fingerprint import PROBE_TEXTS, digest

from tests.server.model.conftest import FAMILIES, load, save_model

Folders = Callable[[str], Path]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_is_the_same_in_every_precision_and_layout(family_folder: Folders, family: str) -> None:
    prints = {
        load(family_folder(family), dtype=dtype, layout=layout).backend.fingerprint()
        for dtype in ("float32", "bfloat16")
        for layout in ("auto", "padded")
    }
    assert len(prints) == 1


def test_the_real_model_has_one_too(model_folder: Path) -> None:
    assert load(model_folder).backend.fingerprint() == load(model_folder, dtype="bfloat16").backend.fingerprint()


def test_other_weights_have_another(family_folder: Folders, tmp_path: Path) -> None:
    other = save_model(tmp_path, "bert", seed=1)
    assert load(family_folder("bert")).backend.fingerprint() != load(other).backend.fingerprint()


def test_another_pooling_has_another(family_folder: Folders) -> None:
    prints = {load(family_folder("bert"), pooling=kind).backend.fingerprint() for kind in ("mean", "cls", "last")}
    assert len(prints) == 3


def test_noise_at_a_step_changes_one_half_at_most() -> None:
    # Two texts at a right angle but for a little, and their similarity on a step of the rounding.
    for similarity in (0.025, 0.05, 0.4, 0.425):
        prints = []
        for noise in (-1e-6, 1e-6):
            rows = np.eye(len(PROBE_TEXTS), dtype=np.float64)
            cosine = similarity + noise
            rows[1, :2] = cosine, np.sqrt(1 - cosine**2)
            prints.append(digest(rows.astype(np.float32)).split("-"))
        assert sum(a == b for a, b in zip(*prints, strict=True)) >= 1
        assert prints[0] != prints[1], "the noise lies on a step of one of them"


def test_scale_does_not_matter_but_width_does() -> None:
    rows = np.random.default_rng(0).normal(size=(len(PROBE_TEXTS), 64)).astype(np.float32)
    assert digest(rows) == digest(rows * 4)
    assert digest(rows) != digest(np.concatenate([rows, np.zeros_like(rows)], axis=1))
