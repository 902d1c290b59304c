"""Which models the engine computes, read from a loaded one: each weight has its known place, or it is refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

# The engine computes whole vectors, of sixteen at most.
_LANES = 16
ACTIVATIONS = {"gelu": 0, "relu": 1}
"""Number of each in activations.h; transformers' gelu is the exact one."""
_DTYPES = (torch.float32, torch.bfloat16)
# A pooler on top of the first token is no part of an embedding.
_UNUSED = ("pooler.",)


class UnknownArchitectureError(ValueError):
    """The engine does not know the model for certain; the text says what it found."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls its parts; weights of a layer lie under its prefix.

    Attributes:
        type_table: Of token types; None where the family has none.
        bias_table: Added to scores by the distance of a key; None where the family has none.
    """

    layers: str
    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    widen: str
    narrow: str
    output_norm: str
    type_table: str | None
    activation: str
    intermediate: str
    bias_table: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights as float32: matrices (outputs, inputs), vectors (outputs,); names as in encoder.h."""

    query_key_value: tuple[torch.Tensor, torch.Tensor]
    out: tuple[torch.Tensor, torch.Tensor]
    widen: tuple[torch.Tensor, torch.Tensor]
    narrow: tuple[torch.Tensor, torch.Tensor]
    attention_norm: tuple[torch.Tensor, torch.Tensor]
    output_norm: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model that the engine computes.

    Attributes:
        dtype: float32 or bfloat16, of the weights and of the computation.
        words: (vocabulary, width), in that dtype; the model's own tensor.
        places: float32 (positions, width), from the first that a row has on; token type 0 is added.
        bias: float32 (heads, 2 positions + 16), added to the score of each query from positions - 1 before a key to
            beyond as far behind it; or None.
        norm: Gain and shift of the embeddings' LayerNorm, float32.
        epsilon: Of every LayerNorm.
    """

    dtype: torch.dtype
    width: int
    heads: int
    intermediate: int
    activation: int
    epsilon: float
    words: torch.Tensor
    places: torch.Tensor
    bias: torch.Tensor | None
    norm: tuple[torch.Tensor, torch.Tensor]
    state: dict[str, torch.Tensor]
    names: Names
    count: int

    def layers(self) -> Iterator[Layer]:
        """One after the other, as each is a copy."""
        for index in range(self.count):
            yield _layer(self.state, self.names, f"{self.names.layers}.{index}.")


_BERT = Names(
    layers="encoder.layer", query="attention.self.query", key="attention.self.key", value="attention.self.value",
    out="attention.output.dense", attention_norm="attention.output.LayerNorm", widen="intermediate.dense",
    narrow="output.dense", output_norm="output.LayerNorm", type_table="embeddings.token_type_embeddings.weight",
    activation="hidden_act", intermediate="intermediate_size",
)  # fmt: skip
_DISTILBERT = Names(
    layers="transformer.layer", query="attention.q_lin", key="attention.k_lin", value="attention.v_lin",
    out="attention.out_lin", attention_norm="sa_layer_norm", widen="ffn.lin1", narrow="ffn.lin2",
    output_norm="output_layer_norm", type_table=None, activation="activation", intermediate="hidden_dim",
)  # fmt: skip
_MPNET = Names(
    layers="encoder.layer", query="attention.attn.q", key="attention.attn.k", value="attention.attn.v",
    out="attention.attn.o", attention_norm="attention.LayerNorm", widen="intermediate.dense", narrow="output.dense",
    output_norm="output.LayerNorm", type_table=None, activation="hidden_act", intermediate="intermediate_size",
    bias_table="encoder.relative_attention_bias.weight",
)  # fmt: skip
_FAMILIES = {
    "BertModel": _BERT, "RobertaModel": _BERT, "XLMRobertaModel": _BERT, "CamembertModel": _BERT,
    "DistilBertModel": _DISTILBERT, "MPNetModel": _MPNET,
}  # fmt: skip
_WORDS, _POSITIONS, _NORM = (
    f"embeddings.{name}" for name in ("word_embeddings.weight", "position_embeddings.weight", "LayerNorm")
)


def read(model: PreTrainedModel, first_position: int) -> Architecture:
    """The weights of a model and what is done with them.

    Args:
        model: In evaluation mode.
        first_position: Of a row: padding_idx + 1 in RoBERTa's family, else 0.

    Raises:
        UnknownArchitectureError: Anything of it is not known.
    """
    names = _FAMILIES.get(type(model).__name__)
    if names is None or not type(model).__module__.startswith("transformers."):
        raise UnknownArchitectureError(f"{type(model).__name__} is none of {', '.join(_FAMILIES)}")
    config, state = model.config, model.state_dict()
    count = int(config.num_hidden_layers)
    _check_names(state, names, count)
    _check_config(config, names)
    width = int(config.hidden_size)
    heads, intermediate = int(config.num_attention_heads), int(getattr(config, names.intermediate))
    _check_sizes(width, heads, intermediate)
    places = state[_POSITIONS][first_position:].float()
    if names.type_table:
        places = places + state[names.type_table][0].float()
    return Architecture(
        dtype=_only({tensor.dtype for tensor in state.values()}, _DTYPES, "weights"),
        width=width, heads=heads, intermediate=intermediate, count=count,
        activation=ACTIVATIONS[str(getattr(config, names.activation))], epsilon=_epsilon(model),
        words=state[_WORDS].contiguous(), places=places.contiguous(), bias=_bias(model, names, len(places)),
        norm=_pair(state, _NORM), state=state, names=names,
    )  # fmt: skip


def _bias(model: PreTrainedModel, names: Names, positions: int) -> torch.Tensor | None:
    """Depends on nothing but the distance, so one row for each head says all."""
    if names.bias_table is None:
        return None
    distances = -torch.arange(1 - positions, positions + 1 + _LANES)
    encoder: Any = model.encoder
    table: torch.Tensor = encoder.relative_attention_bias.weight[encoder.relative_position_bucket(distances)]
    return table.float().T.contiguous()


def _check_names(state: dict[str, torch.Tensor], names: Names, count: int) -> None:
    parts = (
        names.query, names.key, names.value, names.out, names.attention_norm, names.widen, names.narrow,
        names.output_norm,
    )  # fmt: skip
    expected = {_WORDS, _POSITIONS, f"{_NORM}.weight", f"{_NORM}.bias"}
    expected |= {table for table in (names.type_table, names.bias_table) if table}
    expected |= {
        f"{names.layers}.{index}.{part}.{kind}"
        for index in range(count)
        for part in parts
        for kind in ("weight", "bias")
    }
    found = {key for key in state if not key.startswith(_UNUSED)}
    for said, keys in (("lacks", expected - found), ("has also", found - expected)):
        if keys:
            raise UnknownArchitectureError(f"the model {said} {min(keys)}")


def _check_config(config: object, names: Names) -> None:
    activation = getattr(config, names.activation)
    if activation not in ACTIVATIONS:
        raise UnknownArchitectureError(f"activation {activation!r}; expected {' or '.join(ACTIVATIONS)}")
    for name, usual in (("is_decoder", False), ("add_cross_attention", False), ("position_embedding_type", "absolute")):
        if getattr(config, name, usual) not in (usual, None):
            raise UnknownArchitectureError(f"{name} is {getattr(config, name)!r}")


def _check_sizes(width: int, heads: int, intermediate: int) -> None:
    for name, size in (("head_dim", width // heads), ("intermediate size", intermediate)):
        if size % _LANES or width % heads:
            raise UnknownArchitectureError(f"{name} {size}: expected a multiple of {_LANES}")


def _epsilon(model: PreTrainedModel) -> float:
    found = {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)}
    if len(found) != 1:
        raise UnknownArchitectureError(f"LayerNorms differ: {sorted(found)}")
    return float(found.pop())


def _only(found: set[torch.dtype], allowed: tuple[torch.dtype, ...], what: str) -> torch.dtype:
    if len(found) != 1 or not found <= set(allowed):
        raise UnknownArchitectureError(f"{what} in {', '.join(sorted(map(str, found)))}")
    return found.pop()


def _layer(state: dict[str, torch.Tensor], names: Names, prefix: str) -> Layer:
    def pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return _pair(state, prefix + name)

    weights, biases = zip(*(pair(name) for name in (names.query, names.key, names.value)), strict=True)
    return Layer(
        query_key_value=(torch.cat(weights), torch.cat(biases)), out=pair(names.out), widen=pair(names.widen),
        narrow=pair(names.narrow), attention_norm=pair(names.attention_norm), output_norm=pair(names.output_norm),
    )  # fmt: skip


def _pair(state: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return state[f"{name}.weight"].float().contiguous(), state[f"{name}.bias"].float().contiguous()
