"""From a block of input on the device to pooled rows: the same steps for every batch of a shape, and no wait."""

import torch
from transformers import PreTrainedModel

from sluice_server.model.cuda import attention, staging
from sluice_server.model.cuda.shapes import Shape
from sluice_server.model.pooling import packed_sums


class PackedForward:
    """A model, its input's place on the device, and pooling; what a graph captures.

    Args:
        model: In evaluation mode, on the device; attends with row_attention from now on.
        size: int32 that the largest input takes.
        tokens: Of the largest shape.
    """

    def __init__(self, model: PreTrainedModel, size: int, tokens: int) -> None:
        attention.use(model)
        self._model = model
        self.input = torch.zeros(size, dtype=torch.int32, device=model.device)
        self._places = torch.arange(tokens, dtype=torch.int32, device=model.device)

    def __call__(self, shape: Shape) -> torch.Tensor:
        """Computes what lies in `input`, as staging.py wrote it.

        Args:
            shape: Of the batch.

        Returns:
            float32 (shape.rows, width), summed, not yet divided; zeros where a row has no tokens.
        """
        parts = staging.sections(shape)
        states: torch.Tensor = self._model(
            # RoBERTa and BERT gather with them, which takes int64.
            input_ids=self.input[parts.ids].long()[None],
            position_ids=self.input[parts.positions].long()[None],
            **{attention.ROW_BOUNDS: self.input[parts.bounds].view(2, shape.tokens)},
        ).last_hidden_state
        weights = self.input[parts.weights].view(torch.float32)
        return packed_sums(states[0], weights, self.input[parts.offsets], self._places[: shape.tokens])
