"""Balance over the batch in training: the same on every mesh and in parts, kept, and apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import Groupings, Noise
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import train
from switchx.training.adapting import named
from switchx.training.batches import put_batch
from switchx.training.state import Setup
from switchx.training.step import compile_train_step
from tests.training.helpers import (
    BATCH,
    SWITCH,
    assert_same_end,
    batch,
    feed,
    params_of,
    run_config,
)

WAYS = {
    "bias": dict(balance_bias=0.01, balance_loss_over="batch"),
    "quantile": dict(balance_quantile=1.0),
}
STEPS = 3
ONE = MeshConfig(1, 1, 1)


def balanced_run(way, **changes):
    """Experts in the one feed-forward of each stack."""
    switch = dataclasses.replace(SWITCH, **way)
    sizes = {"d_model": 32, "d_ff": 32, "num_heads": 2, "switch": switch, "activation": "geglu"}
    optimizer = {"name": "adamw", "weight_decay": 0.1, "learning_rate": 1e-3}
    return run_config(**{**sizes, **optimizer, **changes})


def in_attention(way):
    """And in attention: two rows of biases in a layer."""
    return {**way, "experts_in": "both"}


def trained(run, fresh, rows):
    """(parameters by name, metrics of the last step) on the host, some steps from a state."""
    sizes = run.mesh
    count = sizes.data * sizes.expert * sizes.model
    setup = Setup.of(run, make_mesh(run.mesh, jax.devices()[:count]))
    state, step = jax.device_put(fresh, setup.shardings), compile_train_step(setup)
    for number in range(STEPS):
        state, metrics = step(state, put_batch(rows(number), setup))
    return named(jax.device_get(state.params)), jax.device_get(metrics)


def routing(output):
    """The experts of each stack's tokens, layer by layer."""
    stacks = {"encoder": output.encoder_N, "decoder": output.decoder_N}
    return {name: stack.assignment.expert_GSJ for name, stack in stacks.items()}


def biases(params):
    return {name: leaf for name, leaf in params.items() if name.endswith("bias_E")}


def encoder_rows(number):
    """A batch of an encoder alone."""
    input_BL = batch(number)["encoder_input_tokens"]
    weight_BL = (input_BL % 5 == 1).astype(np.float32)
    rows = {"encoder_input_tokens": input_BL, "encoder_target_tokens": input_BL}
    return {**rows, "encoder_loss_weights": weight_BL}


@pytest.mark.parametrize(
    ("way", "changes", "rows"),
    [("bias", {"num_decoder_layers": 0}, encoder_rows), ("quantile", {}, batch)],
    ids=WAYS,
)
def test_it_is_the_same_on_a_mesh_and_in_microbatches(way, changes, rows):
    """The encoder alone with an extra feed-forward too."""
    way = {**in_attention(WAYS[way]), "extra_dense": bool(changes)}
    alone = balanced_run(way, mesh=ONE, **changes)
    fresh = jax.device_get(Setup.of(alone, make_mesh(ONE, jax.devices()[:1])).init())
    one, metrics = trained(alone, fresh, rows)
    shared = balanced_run(way, mesh=MeshConfig(2, 2, 2), microbatches=2, **changes)
    other, others = trained(shared, fresh, rows)
    assert len(biases(one)) == 4 - 2 * len(changes)
    for name, leaf in biases(one).items():
        assert (np.abs(leaf) > 0).mean() > 0.5
        # Counts are exact: what is left is where a margin lies between two edges.
        np.testing.assert_allclose(other[name], leaf, atol=1e-6, err_msg=name)
    for name in ("penalty", "gradient_norm"):
        np.testing.assert_allclose(others[name], metrics[name], rtol=1e-5)
    for name, leaf in one.items():
        np.testing.assert_allclose(other[name], leaf, atol=1e-5, err_msg=name)


def test_a_bias_moves_by_its_layers_loads_alone():
    """One step from zeros is the rate times the sign of what each layer's experts lack.

    The optimizer, with its decay, sees no bias; one that is frozen stays.
    """
    frozen = "encoder/blocks/layer_0/attention/switch/router/bias_E"
    run = balanced_run(in_attention(WAYS["bias"]), mesh=ONE, num_layers=2, frozen=(frozen,))
    setup = Setup.of(run, make_mesh(run.mesh, jax.devices()[:1]))
    state, placed = setup.init(), put_batch(batch(0), setup)
    assert "bias_E" not in str(jax.tree_util.tree_structure(state.opt_state))
    noise = Noise.for_rows(setup.numbers.seed, state.step, jnp.arange(BATCH, dtype=jnp.uint32))
    groupings = Groupings.of(run.model.switch, train=True).recorded()
    routed = jax.jit(lambda *given: routing(setup.objective.output(*given, groupings)))
    experts = routed(state.params, placed, noise)
    before = named(jax.device_get(state.params))
    state, _ = compile_train_step(setup)(state, placed)
    after = biases(named(jax.device_get(state.params)))
    masks = {"encoder": batch(0)["encoder_input_tokens"] > 0}
    masks["decoder"] = batch(0)["decoder_target_tokens"] > 0
    assert not any(leaf.any() for leaf in biases(before).values())
    for stack, expert_NGSJ in experts.items():
        expert_NT = np.asarray(expert_NGSJ).reshape(4, -1)
        for n, expert_T in enumerate(expert_NT):
            count_E = np.bincount(expert_T[masks[stack].reshape(-1)], minlength=8)
            part = ("attention", "feed_forward")[n % 2]
            name = f"{stack}/blocks/layer_0/{part}/switch/router/bias_E"
            sign_E = np.sign(count_E.mean() - count_E) * (name != frozen)
            np.testing.assert_allclose(after[name][n // 2], 0.01 * sign_E, rtol=1e-6, err_msg=name)


def test_a_run_goes_on_bit_by_bit(tmp_path, one_device):
    changes = {"d_model": 16, "train_steps": 4, "microbatches": 2}
    run = balanced_run(WAYS["quantile"], mesh=ONE, **changes)
    first = dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, train_steps=2))
    train(first, str(tmp_path / "run"), feed())
    assert train(run, str(tmp_path / "run"), feed()).first_step == 2
    train(run, str(tmp_path / "whole"), feed())
    assert_same_end(tmp_path / "run", tmp_path / "whole", run)
    assert all(leaf.any() for leaf in biases(named(params_of(tmp_path / "run", run))).values())
    without = balanced_run({}, mesh=ONE, **{**changes, "train_steps": 5})
    says = "BALANCE_BIAS or BALANCE_QUANTILE is 'above 0' there and '0.0' here: set that"
    with pytest.raises(UserError, match=says):
        train(without, str(tmp_path / "run"), feed())
