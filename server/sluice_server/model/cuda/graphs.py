"""CUDA graphs, captured by hand, one a shape: a forward's hundreds of launches become one."""

import logging

import torch

from sluice_server.backend import OutOfDeviceMemoryError
from sluice_server.model.cuda.forward import PackedForward
from sluice_server.model.cuda.shapes import Shape

logger = logging.getLogger(__name__)


class Graphs:
    """Captured and replayed in one thread, on one stream; they share a pool, as only one runs at a time.

    Args:
        forward: What is captured.
        stream: To capture from; None captures nothing, and every shape is computed eagerly.
    """

    def __init__(self, forward: PackedForward, stream: torch.cuda.Stream | None) -> None:
        self._forward = forward
        self._stream = stream
        self._pool = None if stream is None else torch.cuda.graph_pool_handle()
        self._captured: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def __contains__(self, shape: Shape) -> bool:
        return shape in self._captured

    def capture(self, shape: Shape) -> bool:
        """Captures a shape that was computed eagerly before, so that nothing is made or chosen while it is.

        Returns:
            Whether it was; one that was not is computed eagerly, and the log says why.
        """
        if self._stream is None:
            return False
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may ask for events meanwhile, which the default mode forbids.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                output = self._forward(shape)
        except (RuntimeError, OutOfDeviceMemoryError) as error:
            logger.warning("%s is computed without a graph: %s", shape, error)
            return False
        self._captured[shape] = (graph, output)
        return True

    def drop(self, shape: Shape) -> None:
        """The shape is computed eagerly from now on."""
        self._captured.pop(shape, None)

    def compute(self, shape: Shape) -> torch.Tensor:
        """Enqueues one forward over the input that is on the device.

        Returns:
            float32 (shape.rows, width); of a graph, it is overwritten by the next one.
        """
        captured = self._captured.get(shape)
        if captured is None:
            return self._forward(shape)
        graph, output = captured
        graph.replay()
        return output
