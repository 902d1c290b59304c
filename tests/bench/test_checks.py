"""What decides whether a contestant computes the model at all."""

import numpy as np
import pytest

from bench import checks
from bench.machine import locked_versions


def test_the_lowest_cosine_is_that_of_the_worst_row_whatever_the_rows_length() -> None:
    one = np.array([[2.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    other = np.array([[5.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    assert checks.lowest_cosine(one, other) == pytest.approx(0.8)


def test_there_are_twenty_texts_to_check_with() -> None:
    assert len(set(checks.TEXTS)) == 20


def test_versions_are_read_from_the_lock() -> None:
    lock = "openvino==2026.4.1 \\\n    --hash=sha256:00\nonnx==1.0 ; python_version < '3'\ntorch==2.15.0 \\\n"
    assert locked_versions(lock) == {"torch": "2.15.0", "openvino": "2026.4.1"}
