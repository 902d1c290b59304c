"""Quantities of Kubernetes, such as 500m, 2Gi and 1e3, as numbers. Pure."""

from __future__ import annotations

from decimal import Decimal

_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def parse(text: str | int) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        ValueError: the text is no quantity.
    """
    said = str(text)
    number, factor = said, Decimal(1)
    if said[-2:] in _BINARY:
        number, factor = said[:-2], Decimal(1024) ** _BINARY[said[-2:]]
    elif said[-1:] in _POWERS:
        number, factor = said[:-1], Decimal(10) ** _POWERS[said[-1]]
    try:
        return Decimal(number) * factor
    except ArithmeticError as error:
        raise ValueError(f"{said!r} is no quantity, such as 500m or 2Gi") from error
