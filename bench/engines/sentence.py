"""sentence-transformers' `encode` in a bare loop: texts in, as its users call it."""

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from bench.engines.base import Embeddings, Texts, Way

_TEXTS_PER_CALL = 128
_BATCH_SIZE = 32


class SentenceEngine:
    """A SentenceTransformer on the CPU; it sorts the texts of each call by length."""

    def __init__(self, model: str, dtype: str) -> None:
        self._model = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
        special = self._model.tokenizer.all_special_ids
        self._special = torch.tensor(special)

    def ways(self, lengths: Sequence[int]) -> Sequence[Way]:
        """See Engine."""
        calls = [
            range(start, min(start + _TEXTS_PER_CALL, len(lengths)))
            for start in range(0, len(lengths), _TEXTS_PER_CALL)
        ]
        return [Way(f"encode, {_TEXTS_PER_CALL} texts a call, batch_size={_BATCH_SIZE}", calls, _BATCH_SIZE)]

    def start(self, batch: Texts, option: Any) -> int:
        """See Engine."""
        self._model.encode(list(batch.texts), batch_size=option, show_progress_bar=False)
        lengths = sorted((len(row) for row in batch.rows), reverse=True)
        groups = [lengths[start : start + option] for start in range(0, len(lengths), option)]
        return sum(len(group) * group[0] for group in groups)

    def finish(self) -> None:
        """See Engine."""

    def embed(self, batch: Texts) -> Embeddings:
        """See Engine."""
        rows: Embeddings = self._model.encode(list(batch.texts), normalize_embeddings=True, show_progress_bar=False)
        return rows

    def embed_without_special(self, batch: Texts) -> Embeddings:
        """The same states, pooled without the special tokens, as coral-gpu-inference does."""
        rows = []
        for states, ids in zip(
            self._model.encode(list(batch.texts), output_value="token_embeddings", show_progress_bar=False),
            batch.rows,
            strict=True,
        ):
            kept = ~torch.isin(torch.from_numpy(ids.astype("int64")), self._special)
            rows.append(torch.nn.functional.normalize(states[: len(ids)][kept].float().mean(dim=0), dim=0))
        pooled: Embeddings = torch.stack(rows).numpy()
        return pooled

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens included."""
        ids: list[list[int]] = self._model.tokenizer(list(texts))["input_ids"]
        return ids
