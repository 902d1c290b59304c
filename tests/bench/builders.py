"""Turns and results files as tests need them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench import roster
from bench.lineup import About
from bench.rounds import Turn


def turn(name: str, number: int, tokens_per_second: float, **other: Any) -> Turn:
    given: dict[str, Any] = {"codes": {"OK": 100}, "latencies_ms": (10.0, 20.0, 30.0), **other}
    return Turn(name, number, seconds=2.0, requests=100, tokens=round(2 * tokens_per_second), **given)


def result(*cells: Mapping[str, Any], cosines: Mapping[str, float] | None = None, **other: Any) -> dict[str, Any]:
    """A results file of a run that measured these cells."""
    names = {one["contestant"] for cell in cells for one in cell["turns"]} | set(cosines or {})
    shown = [name for name in roster.NAMES if name in names]
    return {
        "date": "2026-01-02",
        "seconds": 600,
        "stolen_share": 0.01,
        "machine": {
            "cpu": "a CPU",
            "cores": 2,
            "flags": ["avx2"],
            "memory_gib": 8.0,
            "python": "3.11",
            "versions": {"torch": "2"},
            "peer_versions": {"openvino": "1"},
        },
        "options": {"seconds": 1.5, "rounds": 3},
        "contestants": [
            dataclasses.asdict(About(name, "server", "what it is", (cosines or {}).get(name))) for name in shown
        ],
        "absent": {},
        "naive_padding": {"products": 2.5},
        "cells": list(cells),
        "bare_forward_ms": {},
        **other,
    }


def cell(group: str, *turns: Turn, **other: Any) -> dict[str, Any]:
    """One cell of a results file."""
    return {
        "group": group,
        "mix": "products",
        "texts": 1,
        "input": "ids",
        "clients": 32,
        "per_second": None,
        "deadline_seconds": 60.0,
        "load": None,
        "turns": [dataclasses.asdict(one) for one in turns],
        **other,
    }
