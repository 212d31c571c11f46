"""Models of transformers on random weights, and the same models of ours, through import."""

import dataclasses
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from switchx.interop.hf import open_source
from switchx.model import Model, ModelConfig
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import with_switch

try:
    import torch
    import transformers
except (ImportError, OSError) as error:  # OSError: a CUDA build without CUDA's libraries
    REASON = (
        f"torch cannot be imported ({str(error)[:100]}); install the one that "
        "requirements/dev.lock names, in a build for CPUs"
    )
    if os.environ.get("CI") == "true":
        raise RuntimeError(REASON) from error
    pytest.skip(REASON, allow_module_level=True)

torch.set_num_threads(1)  # more would wait for each other in loops, where cores are busy

VOCAB, LENGTH = 360, 8  # the ids of VOCABULARY='bytes', and one more
_SIZES = dict(
    d_model=16,
    d_kv=4,
    d_ff=32,
    num_layers=4,
    num_heads=4,
    decoder_start_token_id=0,
)
_V1_1 = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
# Kinds of the T5 family: the classes' stem, what the config says, and whether the logits have a
# matrix of their own. byt5: a deep encoder, and attention whose width is not d_model.
_T5: dict[str, tuple[str, dict[str, Any], bool]] = {
    "t5": ("T5", {}, False),
    "t5_1_1": ("T5", dict(_V1_1, num_decoder_layers=2), True),
    "byt5": ("T5", dict(_V1_1, num_layers=6, num_decoder_layers=2, d_kv=6), True),
    "ul2": ("T5", dict(feed_forward_proj="gated-silu", tie_word_embeddings=False), True),
    "mt5": ("MT5", {}, True),
    "umt5": ("UMT5", dict(num_decoder_layers=3), True),
}
# switch_c: as the largest released one, the logits' matrix its own and the layers as transformers
# publishes them: all sparse in the encoder, fewer and none sparse in the decoder.
KINDS = (*_T5, "switch", "switch_c")


@functools.cache
def peer(kind: str, seed: int = 0, vocab: int = VOCAB) -> Any:
    """A model of transformers whose every parameter matters, norms and bias tables included."""
    torch.manual_seed(seed)
    if kind in _T5:
        stem, settings, own_logits = _T5[kind]
        settings = {"vocab_size": vocab, **_SIZES, **settings}
        config = getattr(transformers, f"{stem}Config")(**settings)
        model = getattr(transformers, f"{stem}ForConditionalGeneration")(config)
        if own_logits:  # transformers 5 ties what it makes anew
            model.lm_head.weight = torch.nn.Parameter(torch.randn(vocab, config.d_model))
    else:
        layers = 4 if kind == "switch_c" else 2
        more = 1 if kind == "switch" else 0  # a depth that is no multiple of the period
        config = transformers.SwitchTransformersConfig(
            vocab_size=vocab,
            **{**_SIZES, "num_layers": 4 + more},
            num_decoder_layers=3 if kind == "switch_c" else 4,
            num_sparse_encoder_layers=layers,
            num_sparse_decoder_layers=layers,
            num_experts=4,
            expert_capacity=64,
            tie_word_embeddings=kind != "switch_c",
        )
        model = transformers.SwitchTransformersForConditionalGeneration(config)
        if kind == "switch_c":  # transformers 5 then gives each stack an embedding of its own
            model.encoder.embed_tokens.weight.data.copy_(model.shared.weight)
            model.decoder.embed_tokens.weight.data.copy_(model.shared.weight)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            if "relative_attention_bias" in name:
                parameter.mul_(4.0)
    return model.eval()


def save(model: Any, folder: Path, **settings: Any) -> Path:
    model.save_pretrained(folder, **settings)
    return folder


@functools.cache
def ours(kind: str, seed: int = 0, vocab: int = VOCAB) -> tuple[Model, dict[str, Any]]:
    """The same model, of which evaluation drops nothing."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(save(peer(kind, seed, vocab), Path(folder))))
        model = Model.of(roomy(source.config))
        return model, source.params(abstract(model))


def roomy(config: ModelConfig) -> ModelConfig:
    """Computed in float32, in groups of one row of LENGTH with room for all of it."""
    config = dataclasses.replace(config, dtype="float32")
    if config.switch is None:
        return config
    return with_switch(
        config, eval_capacity_factor=4.0, encoder_group_size=LENGTH, decoder_group_size=LENGTH
    )


def abstract(model: Model) -> dict[str, Any]:
    """Shapes of the parameters on one device."""
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), model.shapes
    )
