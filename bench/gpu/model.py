"""A model of ModernBERT-base's size with random weights, as it would lie on disk: speed does not ask for more."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, ModernBertConfig, PreTrainedTokenizerFast

# Of its linear layers, and of attention over rows of each length: two for each multiply-and-add.
_LINEAR_FLOPS = 220.6e6
_FLOPS_PER_TOKEN = {32: 223e6, 128: 228e6, 512: 238e6}
LENGTHS = tuple(_FLOPS_PER_TOKEN)
# About what a batch of 5 ms holds; one of the server's budgets.
_BATCH_TOKENS = 8960


def batch_tokens(length: int) -> int:
    """Of a batch of as many rows of this length as it holds."""
    return _BATCH_TOKENS // length * length


def flops_per_token(length: int) -> float:
    """Of one token in a row of this length; 8 of 22 layers see the whole row, the others 64 tokens to either side."""
    return _FLOPS_PER_TOKEN.get(length, _LINEAR_FLOPS)


def save(folder: Path) -> Path:
    """Model and a tokenizer of one token a word, "w0" to "w49999"."""
    torch.manual_seed(0)
    config = ModernBertConfig()
    AutoModel.from_config(config).to(torch.bfloat16).save_pretrained(folder)  # type: ignore[no-untyped-call]
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = {word: place for place, word in enumerate([*special, *(f"w{number}" for number in range(50_000))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        model_max_length=config.max_position_embeddings,
    ).save_pretrained(folder)  # fmt: skip
    return folder
