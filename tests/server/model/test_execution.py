"""The padded layout, compiled by torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.server.model.conftest import load, random_batch

Folders = Callable[[str], Path]


def test_a_compiled_padded_model_gives_the_same_embeddings_in_every_shape(family_folder: Folders) -> None:
    folder = family_folder("bert")
    compiled = load(folder, layout="padded", compile_padded=True).backend
    plain = load(folder, layout="padded").backend
    assert (compiled.execution, plain.execution) == ("compiled", "eager")
    for batch in (random_batch(), random_batch((3, 9))):
        np.testing.assert_allclose(compiled.embed(batch).embeddings, plain.embed(batch).embeddings, atol=1e-5)


def test_a_packed_model_is_not_compiled_that_way_and_the_log_says_so(
    family_folder: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(family_folder("bert"), compile_padded=True).backend.execution == "eager"
    assert "COMPILE=reduce-overhead is not used: it compiles the padded layout (LAYOUT=padded)" in caplog.text
