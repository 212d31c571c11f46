"""Parts are taken out as if the residual connection beside them were all there is."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.evaluation import Evaluator, ablation
from switchx.model import NO_NOISE, Model, blocks, stack
from switchx.model.switch_layer import SwitchLayer
from switchx.sharding import make_mesh
from switchx.training.adapting import named
from switchx.training.objectives import Pretraining
from switchx.training.state import Setup
from tests import helpers
from tests.training.helpers import TWO_KINDS, eval_batches, run_config

# As they come in a forward pass of 4 + 3 layers, experts in every second layer: two blocks, and
# one and a layer by itself.
SUBLAYERS = [
    f"{stack} {layer} {kind}"
    for stack, attentions in [
        ("encoder", ["self-attention"]),
        ("decoder", ["self-attention", "cross-attention"]),
    ]
    for layer in range(4 if stack == "encoder" else 3)
    for kind in [*attentions, "experts" if layer in (1, 3) else "feed-forward"]
]
GROUPS = {
    f"{stack} feed-forwards": {
        f"{stack} {layer}"
        for layer in ("0 feed-forward", "1 experts", "2 feed-forward", "3 experts")[:layers]
    }
    for stack, layers in (("encoder", 4), ("decoder", 3))
}
GROUPS["all experts"] = {name for name in SUBLAYERS if name.endswith("experts")}


@pytest.fixture(scope="module")
def run():
    small = {"d_model": 16, "d_ff": 32, "num_heads": 2, "init_scale": 1.0}
    return run_config(**{**TWO_KINDS, "num_layers": 4}, **small, num_decoder_layers=3)


@pytest.fixture(scope="module")
def setup(run):
    return Setup.of(run, make_mesh(run.mesh))


@pytest.fixture(scope="module")
def params(run, setup):
    return jax.device_put(helpers.init(run.model, seed=3), setup.shardings.params)


@pytest.fixture(scope="module")
def evaluated(setup):
    return Evaluator(setup, eval_batches)


@pytest.fixture(scope="module")
def loss_keeping(run):
    """The loss of parameters where only these sublayers' steps reach the residual stream.

    A function of parameters and one number a sublayer, 1 or 0, in the order of SUBLAYERS.
    """
    objective = Pretraining.of(run, Model.of(run.model))

    @jax.jit
    def sums(params, kept_K, batch):
        step = iter(kept_K)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.lax, "scan", stack._unrolled)
            patch.setattr(
                blocks, "_residual", lambda _, x_BLD, h_BLD, __: x_BLD + h_BLD * next(step)
            )
            found = objective(params, None, batch, NO_NOISE).sums
        assert next(step, None) is None
        return found["cross_entropy"], found["weight"]

    def loss(params, kept_K):
        total = sum(np.array(sums(params, kept_K, batch)) for batch in eval_batches())
        return total[0] / total[1]

    return loss


def test_every_sublayer_and_the_groups_are_parts(run):
    assert [part.name for part in ablation.parts_of(Model.of(run.model))] == [*SUBLAYERS, *GROUPS]
    dense = Model.of(
        dataclasses.replace(run.model, switch=None, num_layers=1, num_decoder_layers=1)
    )
    assert [part.name for part in ablation.parts_of(dense)] == [
        "encoder 0 self-attention",
        "encoder 0 feed-forward",
        "decoder 0 self-attention",
        "decoder 0 cross-attention",
        "decoder 0 feed-forward",
    ]


def test_a_loss_is_that_without_the_steps_of_the_part(run, params, evaluated, loss_keeping):
    whole = evaluated(params)[0]["loss"]
    for part in ablation.parts_of(Model.of(run.model)):
        found = evaluated(ablation.without(params, part))[0]["loss"]
        out = GROUPS.get(part.name, {part.name})
        kept_K = np.array([name not in out for name in SUBLAYERS], np.float32)
        assert found == pytest.approx(loss_keeping(params, kept_K), rel=1e-5), part.name
        assert abs(found - whole) > 1e-5, part.name


def test_without_an_expert_its_tokens_pass_by_the_residual(run, params, evaluated, monkeypatch):
    """The loss is that of layers whose answer to the expert's tokens is dropped on the way out."""
    layers = ablation.experts_of(Model.of(run.model))
    assert [[part.name for part in layer][5] for layer in layers] == [
        f"{name} expert 5" for name in ("encoder 1", "encoder 3", "decoder 1")
    ]
    objective = Pretraining.of(run, Model.of(run.model))
    answered, turn = SwitchLayer.__call__, itertools.count()

    def without(layer, x_BLD, mask_BL, grouping, noise):
        recorded = dataclasses.replace(grouping, recorded=True)
        y_BLD, routed = answered(layer, x_BLD, mask_BL, recorded, noise)
        gone_BL1 = (routed.record.assignment.expert_GSJ == 5).reshape(*mask_BL.shape, 1)
        return jnp.where(gone_BL1 & (next(turn) == 1), 0.0, y_BLD), routed  # of encoder 3 alone

    monkeypatch.setattr(jax.lax, "scan", stack._unrolled)
    monkeypatch.setattr(SwitchLayer, "__call__", without)

    @jax.jit
    def sums(params, batch):
        found = objective(params, None, batch, NO_NOISE).sums
        return found["cross_entropy"], found["weight"]

    total = sum(np.array(sums(params, batch)) for batch in eval_batches())
    monkeypatch.undo()
    whole, (loss,) = ablation.losses_without(evaluated, params, [layers[1][5]])
    assert loss == pytest.approx(total[0] / total[1], rel=1e-5)
    assert abs(loss - whole) > 1e-5
    changed = ablation.without(params, layers[1][5])
    same = jax.tree.map(lambda new, old: np.sum(np.asarray(new) != old), changed, params)
    assert sum(jax.tree.leaves(same)) == 32 * 16  # its own last matrix, d_ff x d_model


def test_experts_of_several_widths_are_taken_out_by_number(run):
    model = helpers.with_switch(run.model, expert_widths=((6, 24), (2, 48)))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), Model.of(model).shapes)
    parts = {part.name: part for part in ablation.parts_of(Model.of(model))}
    assert [*parts] == [*SUBLAYERS, *GROUPS]

    def zeroed(part):
        """Zeros by parameter, where there are any now."""
        after = named(ablation.without(params, part))
        found = {name: int(np.sum(np.asarray(x) == 0)) for name, x in after.items()}
        return {name: zeros for name, zeros in found.items() if zeros}

    folder = "decoder/blocks/layer_1/feed_forward/switch/experts"
    both = {f"{folder}/width_0/wo_EFD": 6 * 24 * 16, f"{folder}/width_1/wo_EFD": 2 * 48 * 16}
    assert zeroed(parts["decoder 1 experts"]) == both
    experts = ablation.experts_of(Model.of(model))[2]
    assert zeroed(experts[7]) == {f"{folder}/width_1/wo_EFD": 48 * 16}
    assert not np.any(
        ablation.without(params, experts[7])["decoder"]["blocks"]["layer_1"]["feed_forward"][
            "switch"
        ]["experts"]["width_1"]["wo_EFD"][0, 1]
    )


def test_what_is_not_taken_out_is_the_same_array(run, params):
    part = ablation.parts_of(Model.of(run.model))[-1]
    changed = ablation.without(params, part)
    same = jax.tree.map(lambda new, old: new is old, changed, params)
    assert sum(not each for each in jax.tree.leaves(same)) == 2  # of either stack
    infinite = jax.tree.map(lambda x: x + np.inf, params)
    zeros = ablation.without(infinite, part)["encoder"]["blocks"]["layer_1"]["feed_forward"]
    assert not np.asarray(zeros["switch"]["experts"]["wo_EFD"]).any()
