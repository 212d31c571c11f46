"""What differs between the model types of the T5 family in transformers: activations, logits."""

from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.model.activations import is_gated

SWITCH, T5, MT5, UMT5 = "switch_transformers", "t5", "mt5", "umt5"
KINDS = (SWITCH, T5, MT5, UMT5)

# Functions of transformers' ACT2FN and ours, ungated and gated. Its "gelu" is x Phi(x) by the error
# function and "gelu_new" the approximation by a tanh, of which the next two are other spellings.
_ACTIVATIONS = {
    "relu": ("relu", "reglu"),
    "gelu": ("gelu_erf", "geglu_erf"),
    "gelu_new": ("gelu_tanh", "geglu"),
    "gelu_pytorch_tanh": ("gelu_tanh", "geglu"),
    "gelu_fast": ("gelu_tanh", "geglu"),
    "silu": ("silu", "swiglu"),
    "swish": ("silu", "swiglu"),
}


def read_activation(config: Mapping[str, Any], kind: str, file: str) -> str:
    """Our name of a config.json's activation.

    dense_act_fn and is_gated_act come before feed_forward_proj, as in transformers, where
    feed_forward_proj='gated-gelu' means the approximation by a tanh.

    Raises:
      UserError: there is none.
    """
    named = "relu" if kind in (SWITCH, T5) else "gated-gelu"
    named = config.get("feed_forward_proj", named) if kind != SWITCH else named
    gate, _, function = str(named).rpartition("-")
    key, gated = "feed_forward_proj", config.get("is_gated_act", gate == "gated")
    if config.get("dense_act_fn") is not None:
        key, named = "dense_act_fn", config["dense_act_fn"]
        function = str(named)
    elif named == "gated-gelu":
        function = "gelu_new"
    if function not in _ACTIVATIONS or gate not in ("", "gated"):
        raise UserError(
            f"{file}: {key}={named!r} is none of switchx's activations: accepted are "
            f"{', '.join(_ACTIVATIONS)}, alone or behind 'gated-'."
        )
    return _ACTIVATIONS[function][bool(gated) and kind != SWITCH]


def write_activation(name: str, kind: str) -> dict[str, Any]:
    """The keys that `read_activation` reads."""
    gated = is_gated(name)
    function = next(theirs for theirs, ours in _ACTIVATIONS.items() if name in ours)
    if kind == SWITCH:
        return {"dense_act_fn": function}
    proj = "gelu" if name == "geglu" else function  # what every release says
    return {
        "feed_forward_proj": f"gated-{proj}" if gated else proj,
        "dense_act_fn": function,
        "is_gated_act": gated,
    }


def scales_logits(config: Mapping[str, Any], kind: str) -> bool:
    """Whether logits are scaled by d_model^-0.5.

    tie_word_embeddings says so, whatever is tied: transformers 5 always ties what has no tensor of
    its own. It saves T5's as scale_decoder_outputs, and its mT5 never scales. UMT5's it takes for
    true whatever the file says, where transformers 4 and the trained models, whose folders say
    false, do not scale: we go by the file.
    """
    if kind == MT5:
        return False
    scaled = config.get("tie_word_embeddings", True) is not False
    if kind == T5:
        return config.get("scale_decoder_outputs", scaled) is not False
    return scaled


def write_logits(config: ModelConfig, kind: str) -> dict[str, Any]:
    """The keys that `scales_logits` reads."""
    scaled = config.scaled_logits
    own = {"scale_decoder_outputs": scaled} if kind == T5 else {}
    return {"tie_word_embeddings": scaled, **own}


def kind_of(config: ModelConfig) -> str:
    """The model type that a model of ours is exported as: an mT5 is a T5 of another vocabulary."""
    if config.switch is not None:
        return SWITCH
    return UMT5 if config.bias_per_layer else T5
