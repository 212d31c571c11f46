"""config.json of transformers' `switch_transformers` and `t5`, to and from a ModelConfig."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.interop import hf_layers
from switchx.interop.source import shape_fields
from switchx.model import ModelConfig, SwitchConfig

SWITCH, T5 = "switch_transformers", "t5"

# Fields that transformers has under another name and meaning the same.
_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "d_ff": "d_ff",
    "d_kv": "d_kv",
    "num_heads": "num_heads",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_max_distance": "relative_attention_max_distance",
}
_T5_ACTIVATIONS = {"relu": "relu", "gated-gelu": "geglu"}

# What we have one value for: key, that value, transformers' default.
_FIXED = (
    ("pad_token_id", 0, 0),
    ("decoder_start_token_id", 0, 0),
    ("layer_norm_epsilon", 1e-6, 1e-6),
)
_FIXED_SWITCH = (
    ("dense_act_fn", "relu", "relu"),
    ("router_bias", False, False),
    ("router_dtype", "float32", "float32"),
)

# Settings of the switch layers that either have a counterpart in config.json, or say how to
# train or compute and not what the trained model is. Every other must have its default.
_FREE = {
    "num_experts",
    "every",
    "encoder_sparse",
    "decoder_sparse",
    "jitter",
    "balance_loss_weight",
    "router_z_loss_weight",
    "train_capacity_factor",
    "eval_capacity_factor",
    "min_capacity",
    "encoder_group_size",
    "decoder_group_size",
    "group_padding",
    "expert_dropout_rate",
    "dispatcher",
}


def read_config(
    config: Mapping[str, Any], file: str, own_logits: bool, encoder_alone: bool
) -> ModelConfig:
    """The model that a config.json describes.

    Args:
      file: the config's name, for messages.
      own_logits: whether the logits' matrix is a tensor of its own.
      encoder_alone: whether there is no tensor of a decoder, of which the file says nothing.

    Raises:
      UserError: naming the first key whose value switchx has no counterpart of.
    """
    kind = config.get("model_type")
    if kind not in (SWITCH, T5):
        raise UserError(f"{file}: model_type={kind!r} is not one of {SWITCH}, {T5}.")
    defaults: dict[str, int] = {"relative_buckets": 32, "relative_max_distance": 128}
    sizes: dict[str, Any] = {
        ours: hf_layers.whole(config, theirs, file, defaults.get(ours))
        for ours, theirs in _SIZES.items()
    }
    for key, accepted, default in _FIXED + (_FIXED_SWITCH if kind == SWITCH else ()):
        if config.get(key, default) not in (accepted, None):
            raise UserError(f"{file}: {key}={config[key]!r} is not supported; {accepted!r} is.")
    stacks = hf_layers.read(config, file, kind == SWITCH, encoder_alone)
    shape = shape_fields(**stacks)
    return ModelConfig(
        **sizes,
        **_arguments("ModelConfig", shape),
        activation="relu" if kind == SWITCH else _t5_activation(config, file),
        tied_embeddings=_tied(config, kind, file, own_logits)
        if not encoder_alone
        else not own_logits,
        switch=_switch(config, shape, file) if kind == SWITCH else None,
    )


def _t5_activation(config: Mapping[str, Any], file: str) -> str:
    named = config.get("feed_forward_proj", "relu")
    if not isinstance(named, str) or named not in _T5_ACTIVATIONS:
        accepted = ", ".join(_T5_ACTIVATIONS)
        raise UserError(f"{file}: feed_forward_proj={named!r} is not one of {accepted}.")
    return _T5_ACTIVATIONS[named]


def _tied(config: Mapping[str, Any], kind: str, file: str, own_logits: bool) -> bool:
    """Ours are tied and scaled by d_model^-0.5, or neither.

    In transformers 5, T5's tie_word_embeddings says only whether logits are scaled, and is
    saved as scale_decoder_outputs: a T5 1.1 made there is tied and not scaled. To us that is a
    matrix of its own with the same numbers.
    """
    scaled = config.get("tie_word_embeddings", True) is not False
    if kind == T5:
        scaled = config.get("scale_decoder_outputs", scaled) is not False
    if scaled and own_logits:
        raise UserError(
            f"{file} ties logits to the embedding, but lm_head.weight differs from "
            "shared.weight: set tie_word_embeddings to false if the logits are not scaled."
        )
    return scaled


def _switch(config: Mapping[str, Any], shape: Mapping[str, Any], file: str) -> SwitchConfig:
    experts = hf_layers.whole(config, "num_experts", file, None)
    return SwitchConfig(num_experts=experts, **_arguments("SwitchConfig", shape))


def _arguments(owner: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields that are of one dataclass, by their own names."""
    named = ((name.split("."), value) for name, value in fields.items())
    return {name: value for (of, name), value in named if of == owner}


def model_fields(config: ModelConfig) -> dict[str, Any]:
    """What config.json decides, by gin parameters (`switchx.interop.Source.model_fields`)."""
    names = [*_SIZES, "activation", "tied_embeddings"]
    fields: dict[str, Any] = {"ModelConfig.switch": config.switch is not None}
    fields |= {f"ModelConfig.{name}": getattr(config, name) for name in names}
    if config.switch:
        names = ["num_experts", "top_k"]
        fields |= {f"SwitchConfig.{name}": getattr(config.switch, name) for name in names}
    return fields | shape_fields(config.encoder, config.decoder)


def check_exportable(config: ModelConfig) -> None:
    """Raises UserError for the first setting that transformers has no counterpart of."""
    switch = config.switch
    if switch is None:
        return
    if config.activation != "relu":
        raise UserError(
            f"ModelConfig.activation={config.activation!r}: transformers has no gated experts, "
            "so this model cannot be exported to it."
        )
    hf_layers.check_exportable(config, switch)
    for field in dataclasses.fields(switch):
        value = getattr(switch, field.name)
        if field.name not in _FREE and value != field.default:
            raise UserError(
                f"SwitchConfig.{field.name}={value!r} has no counterpart in transformers, which "
                f"only has {field.default!r}, so this model cannot be exported to it."
            )


def write_config(config: ModelConfig, longest: int, dtype: str, eos_id: int = 1) -> dict[str, Any]:
    """The config.json of a model that `check_exportable` lets pass.

    Args:
      longest: tokens of the longest row. transformers gives each expert a fixed number of slots
        per row, in training and evaluation alike; with this many, a row of that length drops
        nothing, as our decoding drops nothing. It has no groups and no capacity factor.
      eos_id: end of sequence of the vocabulary.
    """
    common = {
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "num_layers": config.encoder.num_layers,
        "num_decoder_layers": config.decoder.num_layers,
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": config.tied_embeddings,
        "is_encoder_decoder": not config.encoder_alone,
        "pad_token_id": 0,
        "eos_token_id": eos_id,
        "decoder_start_token_id": 0,
        "dtype": dtype,
    }
    what = "EncoderModel" if config.encoder_alone else "ForConditionalGeneration"
    if config.switch is None:
        gated = {ours: theirs for theirs, ours in _T5_ACTIVATIONS.items()}
        return {
            "model_type": T5,
            "architectures": [f"T5{what}"],
            **common,
            "feed_forward_proj": gated[config.activation],
        }
    switch = config.switch
    return {
        "model_type": SWITCH,
        "architectures": [f"SwitchTransformers{what}"],
        **common,
        "dense_act_fn": "relu",
        "num_experts": switch.num_experts,
        "expert_capacity": longest,
        **hf_layers.write(config),
        "router_bias": False,
        "router_dtype": "float32",
        "router_jitter_noise": switch.jitter,
        "router_aux_loss_coef": switch.balance_loss_weight,
        "router_z_loss_coef": switch.router_z_loss_weight,
    }
