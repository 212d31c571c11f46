"""What transformers has no counterpart of is refused by name."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.interop.hf_config import check_exportable, read_config, write_config
from switchx.interop.source import SpecialIds, with_biases
from switchx.model import Model, SwitchConfig
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.adapting import named
from switchx.training.placing import abstract_params
from tests.helpers import tiny_config, with_switch
from tests.interop.peers import transformers


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (tiny_config(activation="geglu"), ["ModelConfig.activation='geglu'", "gated experts"]),
        (with_switch(tiny_config(), top_k=2), ["SwitchConfig.top_k=2", "only has 1"]),
        (with_switch(tiny_config(), balance_bias=0.1), ["SwitchConfig.balance_bias=0.1", "0.0"]),
        (
            with_switch(tiny_config(), expert_widths=((3, 32), (1, 64))),
            ["SwitchConfig.expert_widths=((3, 32), (1, 64)) has no counterpart", "exported"],
        ),
        (
            with_switch(tiny_config(num_layers=4), every=4),
            ["SwitchConfig.every=4", "and this encoder in 3, so this model cannot be exported"],
        ),
    ],
)
def test_refused(config, parts):
    with pytest.raises(UserError) as error:
        check_exportable(config)
    assert all(part in str(error.value) for part in parts), error.value


def test_what_is_of_training_alone_is_not():
    check_exportable(with_switch(tiny_config(), balance_loss_over="batch"))


def test_biases_that_a_source_has_not_begin_at_zero():
    model = Model.of(with_switch(tiny_config(), balance_quantile=1.0))
    abstract = abstract_params(model, make_mesh(MeshConfig(2, 2, 2)))
    read = functools.partial(jax.tree.map, lambda to: jnp.ones(to.shape, device=to.sharding))
    params = with_biases(abstract, read)
    assert jax.tree.map(lambda x: x.sharding, params) == jax.tree.map(
        lambda x: x.sharding, abstract
    )
    values = {name: np.unique(leaf).tolist() for name, leaf in named(params).items()}
    assert {n for n, found in values.items() if found == [0.0]} == {
        f"{stack}/blocks/layer_1/feed_forward/switch/router/bias_E"
        for stack in ("encoder", "decoder")
    }
    assert all(found in ([0.0], [1.0]) for found in values.values())


def test_a_setting_that_is_yet_to_come():
    # Whatever is added to the switch layers has no counterpart until someone says it has.
    later = dataclasses.make_dataclass(
        "Later", [("extra", bool, False)], bases=(SwitchConfig,), frozen=True
    )
    check_exportable(tiny_config(switch=later(num_experts=4)))
    with pytest.raises(UserError, match=r"SwitchConfig\.extra=True"):
        check_exportable(tiny_config(switch=later(num_experts=4, extra=True)))


@pytest.mark.parametrize(
    "switch",
    [
        dict(every=1),
        dict(every=2),
        dict(every=1, decoder_sparse=()),
        dict(encoder_sparse=2, decoder_sparse=(1,)),
        dict(encoder_sparse=(1, 5), decoder_sparse=1),
    ],
    ids=str,
)
def test_a_switch_config_comes_back(switch):
    """transformers itself says which layers have experts."""
    uneven = any("sparse" in name for name in switch)
    layers = dict(num_layers=7, num_decoder_layers=3) if uneven else dict(num_layers=4)
    config = with_switch(tiny_config(**layers, tied_embeddings=not uneven), **switch)
    written = write_config(config, 512, "float32", SpecialIds(0, 1))
    theirs = transformers.SwitchTransformersConfig(**written)
    for stack, shape in config.stacks.items():
        model = transformers.AutoModelForSeq2SeqLM.from_config(theirs)
        blocks = getattr(model, stack).block
        sparse = [n for n, block in enumerate(blocks) if block.is_sparse]
        assert (len(blocks), sparse) == (shape.num_layers, list(shape.sparse_layers))
    assert written["expert_capacity"] == 512
    found = read_config(written, "config.json", own_logits=uneven)
    for name in ("stacks", "d_ff", "tied_embeddings", "activation", "relative_buckets"):
        assert getattr(found, name) == getattr(config, name)
    assert found.switch.num_experts == 4


def test_a_dense_config_comes_back():
    config = tiny_config(switch=None, activation="geglu", tied_embeddings=False)
    found = read_config(
        write_config(config, 512, "float32", SpecialIds(0, 1)), "config.json", own_logits=True
    )
    assert (found.activation, found.tied_embeddings, found.switch) == ("geglu", False, None)


def test_sparse_layers_that_are_only_counted():
    # As in configs before encoder_sparse_step was saved.
    written = write_config(with_switch(tiny_config(num_layers=4)), 512, "float32", SpecialIds(0, 1))
    for stack in ("encoder", "decoder"):
        del written[f"{stack}_sparse_step"]
    assert read_config(written, "config.json", False).switch.every == 2
    written["num_sparse_decoder_layers"] = 0
    # What transformers makes of none is one, the second.
    assert read_config(written, "config.json", False).decoder.sparse_layers == (1,)
    # And of more than there are none: so are the decoder's layers of its switch-c-2048.
    written["num_sparse_decoder_layers"] = 5
    assert read_config(written, "config.json", False).decoder.num_sparse == 0
