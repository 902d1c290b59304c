"""Tiny random models of each family, saved as a user would have them, and rows of ids to embed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sluice_server.backend import Batch
from sluice_server.model import LoadedModel, ModelConfig, load_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, DistilBertConfig, ModernBertConfig, MPNetConfig, RobertaConfig

VOCAB_SIZE = 500
# Runs of equal length, a single token, and rows far longer than ModernBERT's window below.
LENGTHS = (5, 100, 5, 37, 1, 100, 63)
_SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_SPECIAL = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertConfig(**_SMALL, max_position_embeddings=160),
    "roberta": lambda: RobertaConfig(**_SMALL, max_position_embeddings=162),
    "mpnet": lambda: MPNetConfig(**_SMALL, max_position_embeddings=162),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCAB_SIZE, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=160
    ),
    "modernbert": lambda: ModernBertConfig(**_SMALL, **_SPECIAL, local_attention=16, max_position_embeddings=160),
}


def tiny_tokenizer() -> Tokenizer:
    """Words "w0" … and a few control tokens; [CLS] and [SEP] around every text."""
    # 0 or 1 is the padding of the families; transformers gives a padding id in RoBERTa no position of its own.
    words = ["[none]", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[query]", "[title]"]
    words += [f"w{number}" for number in range(VOCAB_SIZE - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def save_model(folder: Path, family: str, seed: int = 0) -> Path:
    """Weights large enough that attention and positions matter."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(FAMILIES[family]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not (parameter.ndim == 1 and name.endswith("weight")):
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def load(folder: Path, **settings: Any) -> LoadedModel:
    return load_model(ModelConfig(uri=str(folder), **{"dtype": "float32", **settings}), lambda *_: None)


def random_batch(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Batch:
    sizes = np.array(lengths, dtype=np.int32)
    ids = np.random.default_rng(seed).integers(7, VOCAB_SIZE, sizes.sum(), dtype=np.int32)
    return Batch(ids, sizes, bucket=128, rows=8)


def rows_of(batch: Batch) -> list[NDArray[np.int32]]:
    return np.split(batch.token_ids, np.cumsum(batch.lengths)[:-1])


def alone_by_transformers(folder: Path, batch: Batch) -> NDArray[np.float32]:
    """Each row alone, without padding, in transformers' own eager attention; the plain mean."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    pooled = []
    with torch.inference_mode():
        for row in rows_of(batch):
            ids = torch.from_numpy(row.astype(np.int64))[None]
            pooled.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0))
    return torch.stack(pooled).numpy()


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return folder
