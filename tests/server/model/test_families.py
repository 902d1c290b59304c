"""Every family, in every layout, computes what transformers computes for each row alone."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sluice_server.backend import Batch
from sluice_server.model.grid import round_up
from sluice_server.model.native import architecture

from tests.server.model.conftest import FAMILIES, alone_by_transformers, cosines, load, random_batch, rows_of

Folders = Callable[[str], Path]
WITH_ANY_ATTENTION = sorted(set(FAMILIES) - {"mpnet"})


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_a_batch_equals_each_row_alone(family_folder: Folders, family: str, layout: str) -> None:
    batch = random_batch()
    output = load(family_folder(family), layout=layout).backend.embed(batch)
    np.testing.assert_allclose(output.embeddings, alone_by_transformers(family_folder(family), batch), atol=1e-5)


@pytest.mark.parametrize("family", WITH_ANY_ATTENTION)
def test_auto_packs_and_fills_up_to_the_grid_alone(family_folder: Folders, family: str) -> None:
    backend = load(family_folder(family)).backend
    batch = random_batch()
    assert backend.info.layout == "packed"
    assert backend.embed(batch).computed_tokens == round_up(batch.useful_tokens)


def test_a_model_with_an_attention_of_its_own_is_packed_in_rectangles_and_says_what_they_hold(
    family_folder: Folders,
) -> None:
    backend = load(family_folder("mpnet")).backend
    batch = random_batch((5, 100, 5, 37, 1, 100, 63, 5))
    assert backend.info.layout == "packed"
    # 1 x 1, 3 x 6, 1 x 48, 1 x 64, 2 x 128
    assert backend.embed(batch).computed_tokens == 1 + 18 + 48 + 64 + 256


def test_a_model_with_an_attention_of_its_own_is_not_compiled_by_torch(
    family_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(architecture, "_FAMILIES", {})
    backend = load(family_folder("mpnet"), compile=True, cache_dir=str(tmp_path)).backend
    assert backend.execution == "eager"
    assert "the model stays uncompiled: MPNetModel has an attention of its own" in caplog.text


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_no_row_sees_its_neighbours(family_folder: Folders, family: str, layout: str) -> None:
    backend = load(family_folder(family), layout=layout).backend
    first, other = random_batch(seed=1), random_batch(seed=2)
    kept = 3
    rows = [*rows_of(other)[:kept], rows_of(first)[kept], *rows_of(other)[kept + 1 :]]
    mixed = Batch(np.concatenate(rows), first.lengths, first.bucket, first.rows)
    ours, theirs = backend.embed(first).embeddings, backend.embed(mixed).embeddings
    np.testing.assert_allclose(ours[kept], theirs[kept], atol=1e-5)
    assert np.abs(ours[0] - theirs[0]).max() > 1e-3, "the neighbours did change"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_come_back_in_the_order_they_went_in(family_folder: Folders, family: str) -> None:
    backend = load(family_folder(family)).backend
    batch = random_batch()
    order = np.random.default_rng(3).permutation(len(batch.lengths))
    shuffled = Batch(
        np.concatenate([rows_of(batch)[place] for place in order]), batch.lengths[order], batch.bucket, batch.rows
    )
    np.testing.assert_allclose(backend.embed(shuffled).embeddings, backend.embed(batch).embeddings[order], atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_bfloat16_stays_close_to_float32(family_folder: Folders, family: str) -> None:
    folder, batch = family_folder(family), random_batch()
    backend = load(folder, dtype="bfloat16").backend
    assert backend.info.dtype == "bfloat16"
    assert cosines(backend.embed(batch).embeddings, load(folder).backend.embed(batch).embeddings).min() > 0.999


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_the_longest_row_of_a_bucket_above_the_positions(family_folder: Folders, family: str, layout: str) -> None:
    backend = load(family_folder(family), layout=layout).backend
    assert backend.info.max_position_tokens == 160
    row = random_batch((160,))
    batch = Batch(row.token_ids, row.lengths, bucket=256, rows=8)
    np.testing.assert_allclose(
        backend.embed(batch).embeddings, alone_by_transformers(family_folder(family), row), atol=1e-5
    )
