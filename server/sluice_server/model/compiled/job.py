"""`python -m sluice_server.model.compiled.job RECIPE CACHE_DIR`: compiles a model beside the process that serves it.

A process of its own, because a compiler needs hundreds of megabytes that the server would never give back, and may
fail in ways that a server must not. It runs when the machine has nothing better to do, and ends when the server does.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import torch
import torch._inductor
from transformers import AttentionInterface, AutoConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from sluice_server.model import attention, cpp
from sluice_server.model.compiled import artifact, library
from sluice_server.model.precision import DTYPES
from sluice_server.model.weights import load_weights

_NAME = "sluice_native"
_MOST = 1 << 20
# Of the example that is traced: any sizes but 0 and 1, which torch would take for constants.
_EXAMPLE_LENGTHS = (5, 11, 48)


def main() -> None:
    """Makes the artifact, or ends with an error on stderr."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    recipe = artifact.Recipe(**json.loads(sys.argv[1]))
    os.nice(19)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(recipe.threads)
    wanted = artifact.locate(recipe, sys.argv[2])
    if wanted.exists:
        return
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=".making-", dir=wanted.folder.parent))
    # Its default is under a user's name, which a container's user does not have.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(room / "intermediate")
    try:
        made = artifact.Artifact(room / "finished")
        made.folder.mkdir()
        make(recipe, made)
        artifact.publish(made.folder, wanted)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def make(recipe: artifact.Recipe, target: artifact.Artifact) -> None:
    """Builds the operators, traces the model with them, and compiles it with its weights frozen in.

    Raises:
        BuildError: The operators cannot be built.
        Exception: Whatever torch says of a model that it cannot trace or compile.
    """
    library.build(target.library)
    library.load(target.library)
    torch.library.register_fake("sluice_native::packed_attention", attention.attended_shape)
    folder, dtype = Path(recipe.folder), DTYPES[recipe.dtype]
    config = AutoConfig.from_pretrained(folder, trust_remote_code=recipe.trust_remote_code)
    model = load_weights(
        folder, config, dtype, trust_remote_code=recipe.trust_remote_code, allow_pickle=recipe.allow_pickle
    )
    AttentionInterface.register(_NAME, attention.as_layer(_attention))
    model.set_attn_implementation(_NAME)
    tokens, rows = torch.export.Dim("tokens", min=2, max=_MOST), torch.export.Dim("ends", min=2, max=_MOST)
    shapes = {"ids": {0: tokens}, "positions": {0: tokens}, "cu_seqlens": {0: rows}}
    with torch.no_grad():
        exported = torch.export.export(Forward(model), _example(), dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - the documented entry lies there
            exported, package_path=str(target.package), inductor_configs={"freezing": True}
        )


class Forward(torch.nn.Module):
    """A packed forward as a function of three tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Token states.

        Args:
            ids: int64 (tokens,).
            positions: int64 (tokens,), from the model's first position on in each row.
            cu_seqlens: int64 (rows + 1,).

        Returns:
            (tokens, width).
        """
        states: torch.Tensor = self.model(
            input_ids=ids[None], position_ids=positions[None], cu_seq_lens_q=cu_seqlens
        ).last_hidden_state
        return states[0]


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """The operator in C++, for the heads that it computes."""
    if not library.takes(query.shape[-1], query.dtype):
        raise cpp.BuildError(f"heads of {query.shape[-1]} in {query.dtype} are not computed by the operator")
    out: torch.Tensor = torch.ops.sluice_native.packed_attention(query, key, value, cu_seqlens, scale, window)
    return out


def _example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = torch.tensor(_EXAMPLE_LENGTHS)
    positions = torch.cat([torch.arange(length) for length in _EXAMPLE_LENGTHS]) + 2
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.full((int(lengths.sum()),), 5), positions, ends


def _end_with_parent() -> None:
    """The server holds the other end of stdin; however it ends, the kernel closes it."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
