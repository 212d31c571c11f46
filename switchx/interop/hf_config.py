"""config.json of transformers' T5 family, to and from a ModelConfig."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.interop import hf_layers
from switchx.interop.hf_families import (
    KINDS,
    SWITCH,
    T5,
    UMT5,
    kind_of,
    read_activation,
    scales_logits,
    write_activation,
    write_logits,
)
from switchx.interop.source import SpecialIds, shape_fields
from switchx.model import ModelConfig, SwitchConfig

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

_CLASSES = {
    SWITCH: "SwitchTransformers",
    T5: "T5",
    UMT5: "UMT5",
}

# What we have one value for: key, that value, transformers' default.
_FIXED = (("layer_norm_epsilon", 1e-6, 1e-6),)
_FIXED_SWITCH = (
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
    "balance_loss_over",
    "router_z_loss_weight",
    "train_capacity_factor",
    "eval_capacity_factor",
    "min_capacity",
    "encoder_group_size",
    "decoder_group_size",
    "group_padding",
    "expert_dropout_rate",
    "dispatcher",
    "ragged_pools",
}


def read_config(
    config: Mapping[str, Any], file: str, own_logits: bool, encoder_alone: bool = False
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
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{file}: model_type={kind!r} is not one of {', '.join(KINDS)}.")
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
    # An encoder alone has no logits in transformers. None says no more than tied_embeddings does.
    scaled = not own_logits if encoder_alone else scales_logits(config, kind)
    return ModelConfig(
        **sizes,
        **_arguments("ModelConfig", shape),
        activation=read_activation(config, kind, file),
        tied_embeddings=not own_logits,
        scale_logits=None if scaled == (not own_logits) else scaled,
        bias_per_layer=kind == UMT5,
        switch=_switch(config, shape, file) if kind == SWITCH else None,
    )


def read_ids(config: Mapping[str, Any], file: str) -> SpecialIds:
    """Padding and end of sequence.

    Raises:
      UserError: they are no ids of the model, or the decoder begins with something else than
        padding.
    """
    rows = hf_layers.whole(config, "vocab_size", file, None)
    found: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1}
    for key in found:
        value = config.get(key, found[key])
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        found[key] = value
        if value is not None and (type(value) is not int or not 0 <= value < rows):
            raise UserError(f"{file}: {key}={value!r} is none of the ids 0 to {rows - 1}.")
    pad = found["pad_token_id"] or 0
    start = config.get("decoder_start_token_id")
    if start not in (pad, None):
        raise UserError(
            f"{file}: decoder_start_token_id={start!r} is not pad_token_id={pad}: a decoder begins "
            "with padding here, as T5's do, so this model cannot be imported."
        )
    return SpecialIds(pad, found["eos_token_id"])


def _switch(config: Mapping[str, Any], shape: Mapping[str, Any], file: str) -> SwitchConfig:
    experts = hf_layers.whole(config, "num_experts", file, None)
    return SwitchConfig(num_experts=experts, **_arguments("SwitchConfig", shape))


def _arguments(owner: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields that are of one dataclass, by their own names."""
    named = ((name.split("."), value) for name, value in fields.items())
    return {name: value for (of, name), value in named if of == owner}


def model_fields(config: ModelConfig) -> dict[str, Any]:
    """What config.json decides, by gin parameters (`switchx.interop.Source.model_fields`)."""
    names = [*_SIZES, "activation", "tied_embeddings", "scale_logits", "bias_per_layer"]
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
    if config.gated:
        raise UserError(
            f"ModelConfig.activation={config.activation!r}: transformers has no gated experts, "
            "so this model cannot be exported to it."
        )
    if config.bias_per_layer:
        raise UserError(
            "ModelConfig.bias_per_layer=True: transformers' models with experts have one relative "
            "bias per stack, so this model cannot be exported to it."
        )
    hf_layers.check_exportable(config, switch)
    for field in dataclasses.fields(switch):
        value = getattr(switch, field.name)
        if field.name not in _FREE and value != field.default:
            raise UserError(
                f"SwitchConfig.{field.name}={value!r} has no counterpart in transformers, which "
                f"only has {field.default!r}, so this model cannot be exported to it."
            )


def write_config(config: ModelConfig, longest: int, dtype: str, ids: SpecialIds) -> dict[str, Any]:
    """The config.json of a model that `check_exportable` lets pass.

    Args:
      longest: tokens of the longest row. transformers gives each expert a fixed number of slots
        per row, in training and evaluation alike; with this many, a row of that length drops
        nothing, as our decoding drops nothing. It has no groups and no capacity factor.
      ids: of the vocabulary's file.
    """
    kind = kind_of(config)
    common = {
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "num_layers": config.encoder.num_layers,
        "num_decoder_layers": config.decoder.num_layers,
        **write_activation(config.activation, kind),
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": 1e-6,
        **write_logits(config, kind),
        "is_encoder_decoder": not config.encoder_alone,
        "pad_token_id": ids.pad,
        "eos_token_id": ids.eos,
        "decoder_start_token_id": ids.pad,
        "dtype": dtype,
    }
    what = "EncoderModel" if config.encoder_alone else "ForConditionalGeneration"
    if config.switch is None:
        return {
            "model_type": kind,
            "architectures": [_CLASSES[kind] + what],
            **common,
        }
    switch = config.switch
    return {
        "model_type": SWITCH,
        "architectures": [_CLASSES[SWITCH] + what],
        **common,
        "num_experts": switch.num_experts,
        "expert_capacity": longest,
        **hf_layers.write(config),
        "router_bias": False,
        "router_dtype": "float32",
        "router_jitter_noise": switch.jitter,
        "router_aux_loss_coef": switch.balance_loss_weight,
        "router_z_loss_coef": switch.router_z_loss_weight,
    }
