"""Quantities as numbers."""

from decimal import Decimal

import pytest
from sluice_operator.quantity import parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"), (2, "2"), ("500m", "0.5"), ("2Gi", str(2 * 1024**3)), ("1.5Ki", "1536"), ("3k", "3000"),
        ("1e3", "1000"), ("1E", "1e18"), ("100u", "0.0001"), ("7n", "7e-9"), (".5", "0.5"), ("-1", "-1"),
    ],
)  # fmt: skip
def test_what_a_quantity_stands_for(text: str | int, number: str) -> None:
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "one", "1Xi"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity, such as"):
        parse(text)
