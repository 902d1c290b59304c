"""Which shapes have a graph; CUDA itself is played by a graph that counts its replays."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from sluice_server.model.cuda import graphs
from sluice_server.model.cuda.graphs import Graphs
from sluice_server.model.cuda.shapes import Shape

SHAPE, OTHER = Shape(64, 8), Shape(128, 8)


class Forward:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, shape: Shape) -> torch.Tensor:
        self.calls += 1
        return torch.full((shape.rows, 2), float(shape.tokens))


class Graph:
    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


def captured(monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> tuple[Graphs, Forward]:
    """Graphs on a stream that is none; what is captured fails, or does not."""

    @contextmanager
    def capturing(_: Graph, **__: object) -> Iterator[None]:
        yield
        if failure:
            raise failure

    Graph.replays = 0
    monkeypatch.setattr(graphs.torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(graphs.torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(graphs.torch.cuda, "graph", capturing)
    forward = Forward()
    return Graphs(forward, object()), forward


def test_a_captured_shape_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, forward = captured(monkeypatch)
    assert made.capture(SHAPE)
    assert made.compute(SHAPE)[0, 0] == 64
    assert (forward.calls, Graph.replays) == (1, 1)


def test_a_shape_without_a_graph_is_computed_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    made, forward = captured(monkeypatch)
    made.capture(SHAPE)
    assert made.compute(OTHER)[0, 0] == 128
    assert (forward.calls, Graph.replays) == (2, 0)


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("no memory"), RuntimeError("not permitted")])
def test_a_shape_that_cannot_be_captured_is_left_out_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    made, forward = captured(monkeypatch, failure)
    assert not made.capture(SHAPE)
    assert f"{SHAPE} is computed without a graph: {failure}" in caplog.text
    made.compute(SHAPE)
    assert (forward.calls, Graph.replays, len(made)) == (2, 0, 0)


def test_a_dropped_graph_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = captured(monkeypatch)
    made.capture(SHAPE)
    made.drop(SHAPE)
    made.compute(SHAPE)
    assert (len(made), Graph.replays) == (0, 0)


def test_a_device_without_streams_captures_nothing() -> None:
    made = Graphs(Forward(), None)
    assert not made.capture(SHAPE)
    assert made.compute(SHAPE).shape == (8, 2)
