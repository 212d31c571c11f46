"""Stacks of any shape: how they are cut into rows of blocks, and that the cut changes nothing."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import NO_NOISE, Model
from switchx.model.shape import StackShape
from tests.helpers import init, random_inputs, switch_config, tiny_config

D, S = False, True


@pytest.mark.parametrize(
    ("layers", "sparse", "rows"),
    [
        (12, 2, [((D, S), 6)]),
        (4, 4, [((D, D, D, S), 1)]),
        (5, 2, [((D, S), 2), ((D,), 1)]),
        (11, 4, [((D, D, D, S), 2), ((D,), 3)]),
        (3, 1, [((S,), 3)]),
        (3, 4, [((D,), 3)]),
        (6, (), [((D,), 6)]),
        (6, (1, 3, 5), [((D, S), 3)]),  # as 2
        (12, (0, 1, 2), [((S,), 3), ((D,), 9)]),
        (12, (9, 10, 11), [((D,), 9), ((S,), 3)]),
        (12, (1, 5, 9), [((D, S, D, D), 3)]),  # transformers' every fourth
        (5, (0, 3), [((S,), 1), ((D,), 2), ((S, D), 1)]),
    ],
)
def test_rows_of_blocks(layers, sparse, rows):
    found = StackShape.of(layers, sparse).blocks
    assert [(row.sparse, row.num_blocks) for row in found] == rows
    assert [row.name for row in found] == ["blocks", "blocks_1", "blocks_2"][: len(rows)]


@pytest.mark.parametrize("layers", range(1, 7))
def test_every_layer_is_in_one_place_and_as_few_as_can_be_are_compiled(layers):
    """Against all ways to cut a stack."""

    def least(pattern):
        if not pattern:
            return 0
        return min(
            period + least(pattern[end:])
            for end in range(1, len(pattern) + 1)
            for period in range(1, end + 1)
            if end % period == 0 and pattern[:period] * (end // period) == pattern[:end]
        )

    for pattern in itertools.product((D, S), repeat=layers):
        shape = StackShape.of(layers, tuple(n for n in range(layers) if pattern[n]))
        assert tuple(n in shape.sparse_layers for n in range(layers)) == pattern
        rows = {row.name: row for row in shape.blocks}
        assert sum((row.sparse * row.num_blocks for row in shape.blocks), ()) == pattern
        for n in range(layers):
            blocks, layer, block = shape.place(n)
            assert rows[blocks].sparse[layer] == pattern[n]
            assert shape.layers_of(blocks, f"layer_{layer}")[block] == n
        if not isinstance(shape.sparse, int):  # every n-th layer has a block of n, as ever
            assert sum(row.period for row in shape.blocks) == least(pattern)


def test_the_cut_changes_nothing_that_is_computed(monkeypatch):
    """The same layers as rows of equal blocks, and as one block of all layers."""
    config = tiny_config(num_layers=4, switch=switch_config(decoder_sparse=(0, 3)))
    model, params, inputs = Model.of(config), init(config), random_inputs()
    token = jnp.asarray(inputs.decoder_token_BL[:, :1])

    def run(model):
        def outputs(params):
            bound = model.bind(params)
            output = bound(*inputs, NO_NOISE)
            encoded = bound.read(jnp.asarray(inputs.encoder_token_BM))
            written, at_B = bound.nothing_written(encoded, 8), jnp.zeros(4, jnp.int32)
            first, written = bound.decode_step(token, at_B, encoded, written)
            second, _ = bound.decode_step(token, at_B + 1, encoded, written)
            return output.logits_BLV, output.stats_N, first, second

        return outputs

    cut = jax.jit(run(model))(params)
    assert cut[1].balance_loss.shape == (4,)  # encoder 1 and 3, decoder 0 and 3
    whole = {stack: as_one_block(shape, params[stack]) for stack, shape in config.stacks.items()}
    monkeypatch.setattr(
        StackShape,
        "_rows",
        lambda self: [(tuple(n in self.sparse_layers for n in range(self.num_layers)), 1)],
    )
    # Another configuration: what is known of one is not traced again.
    one_block = Model.of(dataclasses.replace(config, init_scale=2.0))
    found = jax.jit(run(one_block))(params | whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, cut)


def as_one_block(shape, params):
    layers = {}
    for n in range(shape.num_layers):
        blocks, layer, block = shape.place(n)
        layers[f"layer_{n}"] = jax.tree.map(
            lambda x, b=block: x[b : b + 1], params[blocks][f"layer_{layer}"]
        )
    return {"blocks": layers}


def test_experts_in_one_stack_alone():
    config = tiny_config(switch=switch_config(encoder_sparse=()))
    shapes = jax.eval_shape(
        lambda params: vars(Model.of(config).bind(params)(*random_inputs(), NO_NOISE)),
        Model.of(config).shapes,
    )
    assert shapes["stats_N"].balance_loss.shape == (1,)
    assert (shapes["encoder_N"], shapes["decoder_N"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(num_decoder_layers=-1), r"num_decoder_layers=-1 must be .* of at least 0"),
        (dict(sparse=(1, 2)), r"encoder_sparse=\(1, 2\): the encoder has 2 layers, so name none a"),
        (
            dict(sparse=0),
            r"SwitchConfig\.encoder_sparse=0 must be a whole number n, for every n-th",
        ),
        (
            dict(sparse=(1, 0)),
            r"SwitchConfig\.encoder_sparse=\(1, 0\) must be .* once and in order",
        ),
        (dict(every=3), r"num_layers=2 with SwitchConfig\.every=3 leaves no layer with experts"),
    ],
)
def test_refused(changes, says):
    switch = {"every": changes.pop("every", 2), "encoder_sparse": changes.pop("sparse", None)}
    with pytest.raises(UserError, match=says):
        tiny_config(**changes, switch=switch_config(**switch))
