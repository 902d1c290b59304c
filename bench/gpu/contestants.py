"""Who computes rows of one length on the GPU, batch after batch, from ids on the host to embeddings on the host."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sluice_server.backend import Batch
from sluice_server.model import ModelConfig, load_model
from sluice_server.model.cuda.backend import GraphBackend, LaunchedBatch
from transformers import AttentionInterface, AutoModel

from bench.gpu.model import batch_tokens

_BOUNDARIES = (16, 32, 64, 128, 256, 512)
_VARLEN = "bench_varlen"


class Contestant(Protocol):
    """Computes batches of equal rows."""

    def compute(self, ids: NDArray[np.int32], seconds: float) -> tuple[int, NDArray[np.float32]]:
        """Rows (n, length) again and again for so long: how many batches, and the last one's embeddings."""


class Sluice:
    """The server's backend, two batches under way as in the server.

    Args:
        folder: Of the model.
        cache: For compiled code.
        settings: Of ModelConfig.
    """

    def __init__(self, folder: Path, cache: Path, **settings: Any) -> None:
        began = time.perf_counter()
        config = ModelConfig(uri=str(folder), dtype="bfloat16", device="cuda", cache_dir=str(cache), **settings)
        backend = load_model(config, lambda *_: None).backend
        assert isinstance(backend, GraphBackend)
        for batch in backend.warm_up_batches(_BOUNDARIES):
            backend.prepare(batch)
        self.backend = backend
        self.start_seconds = time.perf_counter() - began

    def compute(self, ids: NDArray[np.int32], seconds: float) -> tuple[int, NDArray[np.float32]]:
        """See Contestant."""
        batch, count, under_way = as_batch(ids), 0, None
        end = time.perf_counter() + seconds
        output = None
        while output is None or time.perf_counter() < end:
            launched: LaunchedBatch = self.backend.launch(batch)
            if under_way is not None:
                output, count = under_way.wait(), count + 1
            under_way = launched
        assert under_way is not None
        return count + 1, under_way.wait().embeddings

    def device_seconds(self, ids: NDArray[np.int32], runs: int = 30) -> float:
        """Of one batch, from the first kernel's start to the last one's end, without the host; the median of runs."""
        batch = as_batch(ids)
        self.backend.embed(batch)
        times, queue = [], self.backend._queue  # noqa: SLF001 - what the server has no use for
        shape = self.backend._shape(batch)  # noqa: SLF001
        with queue.entered(), torch.inference_mode():
            for _ in range(runs):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                start.record()
                self.backend._graphs.compute(shape)  # noqa: SLF001
                end.record()
                torch.cuda.current_stream().synchronize()
                times.append(start.elapsed_time(end) / 1000)
        return float(np.median(times))


class Forward:
    """A forward that is given ids on the device and gives pooled rows, one batch after the other.

    Args:
        forward: int64 (n, length) on the device to (n, width).
    """

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._forward = forward

    @torch.inference_mode()
    def compute(self, ids: NDArray[np.int32], seconds: float) -> tuple[int, NDArray[np.float32]]:
        """See Contestant."""
        end, count, rows = time.perf_counter() + seconds, 0, None
        pinned = torch.from_numpy(ids.astype(np.int64)).pin_memory()
        while rows is None or time.perf_counter() < end:
            rows = self._forward(pinned.to("cuda", non_blocking=True)).float().cpu().numpy()
            count += 1
        return count, rows


def padded_compiled(folder: Path) -> Forward:
    """torch.compile with its own CUDA graphs over (rows, length) without any padding: its best case."""
    model = _on_gpu(folder, "sdpa")
    compiled: Any = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = compiled(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)
        return mean

    return Forward(forward)


def packed_by_flash(folder: Path) -> Forward:
    """Packed rows by torch's FlashAttention-2, launch by launch: what sentence-transformers does with flash-attn."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    attend: Any = varlen_attn

    def layer(
        _: Any, query: Any, key: Any, value: Any, *__: Any, sliding_window: int | None = None, **told: Any
    ) -> Any:
        sides = (sliding_window - 1,) * 2 if sliding_window else (-1, -1)
        tokens_first = (one[0].transpose(0, 1) for one in (query, key, value))
        lengths = told["max_length_q"], told["max_length_k"]
        out = attend(*tokens_first, told["cu_seq_lens_q"], told["cu_seq_lens_k"], *lengths, window_size=sides)
        return out[None], None

    AttentionInterface.register(_VARLEN, layer)
    model = _on_gpu(folder, _VARLEN)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        rows, length = ids.shape
        offsets = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device="cuda")
        places = torch.arange(length, device="cuda").repeat(rows)[None]
        states = model(
            input_ids=ids.reshape(1, -1), position_ids=places, cu_seq_lens_q=offsets, cu_seq_lens_k=offsets,
            max_length_q=length, max_length_k=length,
        ).last_hidden_state  # fmt: skip
        mean: torch.Tensor = states.view(rows, length, -1).mean(1)
        return mean

    return Forward(forward)


class SentenceTransformers:
    """`encode` on texts, with torch's sdpa; it tokenizes, too.

    Args:
        folder: Of the model.
    """

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        self._model = SentenceTransformer(
            str(folder), device="cuda", model_kwargs={"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
        )

    def compute(self, ids: NDArray[np.int32], seconds: float) -> tuple[int, NDArray[np.float32]]:
        """See Contestant; [CLS] and [SEP] are put around each text, so that it has as many tokens."""
        texts = [" ".join(f"w{one - 4}" for one in row[1:-1]) for row in ids]
        end, count, rows = time.perf_counter() + seconds, 0, None
        while rows is None or time.perf_counter() < end:
            rows = self._model.encode(texts, batch_size=len(texts), convert_to_numpy=True)
            count += 1
        return count, rows


def rows_of(length: int, seed: int = 0) -> NDArray[np.int32]:
    """int32 (n, length): as many rows as a batch holds, [CLS] and [SEP] around each."""
    ids = np.random.default_rng(seed).integers(4, 50_004, (batch_tokens(length) // length, length), dtype=np.int32)
    ids[:, 0], ids[:, -1] = 1, 2
    return ids


def as_batch(ids: NDArray[np.int32]) -> Batch:
    """Equal rows as the server's batch."""
    rows, length = ids.shape
    return Batch(ids.reshape(-1), np.full(rows, length, dtype=np.int32), length, rows)


def _on_gpu(folder: Path, attention: str) -> Any:
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model.set_attn_implementation(attention)
    return model.to("cuda")
