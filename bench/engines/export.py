"""`python -m bench.engines.export MODEL FOLDER`: writes the model as ONNX: as it is, with fused operators, in int8.

Runs in the environment of dev/locks/peers.txt.
"""

import importlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
_OPSET = 17
_ONNX_FLOAT = 1


class _States(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        return states


def main() -> None:
    """Writes all files, or none."""
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".exporting-") as room:
        made = Path(room) / "finished"
        made.mkdir()
        _plain(model, made / "plain.onnx")
        _fuse(model, made / "plain.onnx", made / "fused.onnx")
        _quantize(made / "plain.onnx", made / "int8.onnx")
        _quantize(made / "fused.onnx", made / "fused-int8.onnx")
        os.rename(made, folder)  # noqa: PTH104 - a folder that is there already is an error


def _plain(model: Path, to: Path) -> None:
    loaded = AutoModel.from_pretrained(model, attn_implementation="eager").eval()
    example = torch.ones(2, 8, dtype=torch.int64)
    names = [*_INPUTS, "last_hidden_state"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _States(loaded), (example, example, example * 0), str(to), dynamo=False, opset_version=_OPSET,
            input_names=_INPUTS, output_names=names[-1:],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names},
        )  # fmt: skip


def _fuse(model: Path, plain: Path, to: Path) -> None:
    optimizer: Any = importlib.import_module("onnxruntime.transformers.optimizer")
    config = json.loads((model / "config.json").read_text())
    optimizer.optimize_model(
        str(plain), model_type="bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"]
    ).save_model_to_file(str(to))


def _quantize(model: Path, to: Path) -> None:
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    # Fused operators have no shapes that onnx could infer; all that is not an integer is float32.
    quantization.quantize_dynamic(
        model, to, per_channel=True, weight_type=quantization.QuantType.QInt8,
        extra_options={"DefaultTensorType": _ONNX_FLOAT},
    )  # fmt: skip


if __name__ == "__main__":
    main()
