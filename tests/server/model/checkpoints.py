"""Tiny random checkpoints of several architectures, with a tokenizer, as they would lie in a folder."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

VOCABULARY = 120
_SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}

CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_SMALL, intermediate_size=64, max_position_embeddings=80),
    "roberta": RobertaConfig(**_SMALL, intermediate_size=64, max_position_embeddings=82, pad_token_id=1),
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=80
    ),
    # A window of 8 in two of three layers: shorter than the rows, so that it matters.
    "modernbert": ModernBertConfig(
        **_SMALL, intermediate_size=64, max_position_embeddings=80, local_attention=8, global_attn_every_n_layers=3,
        pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
    ),
    "mpnet": MPNetConfig(**_SMALL, intermediate_size=64, max_position_embeddings=82, pad_token_id=1),
}  # fmt: skip


def random_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A model with weights large enough that positions and neighbours matter."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(CONFIGS[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


def save(model: PreTrainedModel, folder: Path, *, pooling: str | None = None) -> Path:
    """Writes the model, its tokenizer and its pooling."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    if pooling:
        (folder / "1_Pooling").mkdir()
        modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
        config = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


def tokenizer() -> Tokenizer:
    """Every letter is a token; [CLS] and [SEP] around it; [title] is a control token."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[title]", *map(chr, range(97, 123))]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made
