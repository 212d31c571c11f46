"""One model's parameters as another's, against NumPy."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import Model
from switchx.model.shape import StackShape
from switchx.training.adapting import adapt, named
from switchx.training.config import StartConfig
from switchx.training.counterparts import layers_by_depth, parts_of, record_of
from switchx.training.warm_start import WarmStart
from tests.helpers import switch_config, tiny_config
from tests.training.helpers import run_config

KERNEL, WI = (
    f"encoder/blocks/layer_1/feed_forward/switch/{part}"
    for part in ("router/kernel_DE", "experts/wi_EDF")
)


def random_params(config, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), Model.of(config).shapes
    )


def adapted(there, wanted, load=None, **settings):
    """Names and values before and after; the new model's own parameters are of another seed."""
    config = StartConfig(from_run="runs/a", **settings)
    params, axes = random_params(there, seed=1), Model.of(wanted).axes
    parts = parts_of(config, Model.of(there), Model.of(wanted))
    fresh = random_params(wanted, seed=2)
    made = adapt(config, parts, params, fresh, axes, load or {}, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in named(Model.of(wanted).shapes).items()}
    after = {name: np.asarray(leaf) for name, leaf in named(made).items()}
    assert {name: leaf.shape for name, leaf in after.items()} == shapes
    return {name: np.asarray(leaf) for name, leaf in named(params).items()}, after


def test_more_experts_are_copies_that_noise_parts():
    there, wanted = tiny_config(), tiny_config(switch=switch_config(num_experts=6))
    before, after = adapted(there, wanted, changes=("experts",), noise=0.0)
    np.testing.assert_array_equal(after[WI], before[WI][:, [0, 1, 2, 3, 0, 1]])
    np.testing.assert_array_equal(after[KERNEL], before[KERNEL][..., [0, 1, 2, 3, 0, 1]])
    _, noisy = adapted(there, wanted, changes=("experts",), noise=0.1)
    np.testing.assert_array_equal(noisy[WI][:, :4], before[WI])
    for name, copies in ((WI, np.s_[:, 4:]), (KERNEL, np.s_[..., 4:])):
        noise = (noisy[name] - after[name])[copies]
        scale = 0.1 * np.sqrt(np.mean(np.square(before[name])))
        assert 0.6 * scale < noise.std() < 1.4 * scale
    same = [name for name in before if before[name].shape == after[name].shape]
    assert all(np.array_equal(before[name], noisy[name]) for name in same)


def test_chosen_experts_stay():
    wanted = tiny_config(switch=switch_config(num_experts=2))
    before, after = adapted(tiny_config(), wanted, experts=(3, 1))
    np.testing.assert_array_equal(after[WI], before[WI][:, [3, 1]])
    np.testing.assert_array_equal(after[KERNEL], before[KERNEL][..., [3, 1]])


def test_biases_come_along_with_their_experts_and_are_new_where_there_are_none():
    bias = f"{KERNEL.removesuffix('kernel_DE')}bias_E"
    there = tiny_config(switch=switch_config(balance_bias=0.1))
    wanted = tiny_config(switch=switch_config(balance_quantile=1.0, num_experts=2))
    before, after = adapted(there, wanted, experts=(3, 1))
    np.testing.assert_array_equal(after[bias], before[bias][:, [3, 1]])
    _, after = adapted(there, tiny_config())
    assert not [name for name in after if name.endswith("bias_E")]
    before, after = adapted(tiny_config(), there)
    np.testing.assert_array_equal(after[bias], named(random_params(there, seed=2))[bias])
    np.testing.assert_array_equal(after[KERNEL], before[KERNEL])


def test_a_deeper_stack_and_a_longer_vocabulary():
    there, wanted = tiny_config(), tiny_config(num_layers=6, vocab_size=70)
    before, after = adapted(there, wanted, changes=("layers", "vocabulary"))
    np.testing.assert_array_equal(after[WI], before[WI][[0, 0, 0]])  # three blocks of one
    rows, table = before["embedding/table_VD"], after["embedding/table_VD"]
    np.testing.assert_array_equal(table[:64], rows)
    np.testing.assert_allclose(table[64:], np.tile(rows.mean(0), (6, 1)), rtol=1e-5)


def test_new_parameters_are_those_that_are_named():
    before, after = adapted(tiny_config(), tiny_config(), fresh=("*/router/*",))
    differ = {name for name in before if not np.array_equal(before[name], after[name])}
    assert differ == {name for name in before if "/router/" in name}


@pytest.mark.parametrize(
    ("wanted", "settings", "says"),
    [
        (dict(d_ff=64), {}, "only experts, layers and vocabulary may differ"),
        (dict(vocab_size=70), {}, "START_CHANGES=('vocabulary',)"),
        (dict(vocab_size=60), dict(changes=("vocabulary",)), "a shorter vocabulary"),
        (dict(switch=switch_config(num_experts=2)), {}, "START_EXPERTS"),
        (dict(tied_embeddings=False), {}, "START_FRESH=('embedding/logits_DV',)"),
        ({}, dict(experts=(0, 4)), "START_EXPERTS=(0, 4) must be different numbers from 0 to 3: "),
        (dict(switch=None), {}, "has experts in decoder 1, and this model a dense feed-forward"),
        (dict(num_layers=4), {}, "has 2 encoder layers, and this model 4: set START_CHANGES=('la"),
        ({}, dict(experts=(1, 1)), "START_EXPERTS=(1, 1) must be different numbers from 0 to 3: "),
    ],
)
def test_what_no_rule_allows_is_named(wanted, settings, says):
    with pytest.raises(UserError) as refused:
        adapted(tiny_config(), tiny_config(**wanted), **settings)
    assert says in str(refused.value)
    assert "START_FROM='runs/a' has" in str(refused.value)


def test_experts_that_are_kept_have_the_sizes_that_they_have():
    with pytest.raises(UserError, match=r"START_EXPERTS=\(0, 1\) is of experts as they are, and w"):
        adapted(tiny_config(), tiny_config(d_ff=64), changes=("sizes",), experts=(0, 1))


def test_a_parameter_that_is_not_there_cannot_be_new():
    with pytest.raises(UserError, match=r"START_FRESH=\('\*/ruoter/\*',\): .* is no parameter of"):
        adapted(tiny_config(), tiny_config(), fresh=("*/ruoter/*",))


DEEP, DENSE = tiny_config(num_layers=4), tiny_config(num_layers=4, switch=None)
WO = "feed_forward/switch/experts/wo_EFD"


def of_layer(params, config, stack, layer, rest):
    """A parameter of one layer, wherever it is stacked."""
    blocks, within, block = config.stacks[stack].place(layer)
    return params[f"{stack}/{blocks}/layer_{within}/{rest}"][block]


def test_a_dense_model_takes_all_but_the_experts_and_makes_one_of_those():
    """Layers 1 and 3 of each stack have experts there; all layers are in one row here."""
    before, after = adapted(DEEP, DENSE, feed_forwards="mean", experts=(3, 1))
    np.testing.assert_array_equal(after["embedding/table_VD"], before["embedding/table_VD"])
    for stack, layer in itertools.product(("encoder", "decoder"), range(4)):
        wo_FD = of_layer(after, DENSE, stack, layer, "feed_forward/dense/wo_FD")
        if layer % 2:
            experts_EFD = of_layer(before, DEEP, stack, layer, WO)
            expected = (experts_EFD[3] + experts_EFD[1]) / 2
        else:
            expected = of_layer(before, DEEP, stack, layer, "feed_forward/dense/wo_FD")
        np.testing.assert_array_equal(wo_FD, expected)
        for rest in ("attention/query_DT", "feed_forward/norm/scale_D"):
            kept = of_layer(before, DEEP, stack, layer, rest)
            np.testing.assert_array_equal(of_layer(after, DENSE, stack, layer, rest), kept)


def test_the_load_of_each_layer_chooses_its_expert():
    load = {f"{stack} {n}": np.eye(4)[n] for stack in ("encoder", "decoder") for n in (1, 3)}
    before, after = adapted(DEEP, DENSE, load, feed_forwards="most_used")
    for layer in (1, 3):
        own = of_layer(after, DENSE, "decoder", layer, "feed_forward/dense/wo_FD")
        np.testing.assert_array_equal(own, of_layer(before, DEEP, "decoder", layer, WO)[layer])


def test_what_is_of_other_sizes_is_new_and_named():
    """Wider feed-forwards, and a layer behind those there."""
    wanted = tiny_config(d_ff=64, num_layers=4)
    before, after = adapted(tiny_config(), wanted, changes=("sizes",))
    fresh = {name: np.asarray(x) for name, x in named(random_params(wanted, seed=2)).items()}
    query = "decoder/blocks/layer_0/attention/query_DT"
    np.testing.assert_array_equal(after[query], [before[query][0], fresh[query][1]])
    np.testing.assert_array_equal(after[WI], fresh[WI])
    np.testing.assert_array_equal(after[KERNEL], [before[KERNEL][0], fresh[KERNEL][1]])
    record = record_between(tiny_config(), wanted)
    assert {WI, f"{query}[1]", f"{KERNEL}[1]"} < set(record["fresh"])
    assert (record["changed"], record["left_out"]) == ([], [])
    assert f"{query}[1]" in record_between(wanted, tiny_config())["left_out"]


def record_between(there, wanted):
    models = Model.of(there), Model.of(wanted)
    parts = parts_of(StartConfig(from_run="runs/a", changes=("sizes",)), *models)
    return record_of(parts, *(named(model.shapes) for model in models))


def test_a_shallower_stack_takes_whole_blocks():
    """So that some layers with experts are among them."""
    there = StackShape.of(12, 2)
    assert layers_by_depth(there, StackShape.of(6, ())) == [0, 1, 4, 5, 8, 9]
    assert layers_by_depth(there, StackShape.of(5, ())) == [0, 2, 4, 7, 9]
    assert layers_by_depth(there, StackShape.of(4, 2)) == [0, 1, 6, 7]
    uneven = StackShape.of(5, 2)  # its last layer is a row of its own
    assert layers_by_depth(uneven, StackShape.of(7, 2)) == [0, 1, 0, 1, 2, 3, 4]


OF_WIDTHS = tiny_config(switch=switch_config(expert_widths=((3, 16), (1, 48))))


@pytest.mark.parametrize(
    ("there", "wanted", "settings", "says"),
    [
        (OF_WIDTHS, tiny_config(), {}, "widths ((3, 16), (1, 48)), and this model of ((4, 32),): "),
        (tiny_config(), OF_WIDTHS, {}, "set SwitchConfig.expert_widths to those"),
        (OF_WIDTHS, OF_WIDTHS, dict(experts=(0, 3)), "START_EXPERTS=(0, 3) is of experts"),
        (
            OF_WIDTHS,
            tiny_config(switch=None),
            dict(feed_forwards="mean"),
            "START_FEED_FORWARDS='mean' is of experts",
        ),
        (OF_WIDTHS, OF_WIDTHS, {}, None),
        (OF_WIDTHS, tiny_config(), dict(fresh=("*/switch/*",)), None),
        (tiny_config(), OF_WIDTHS, dict(changes=("sizes",)), None),
    ],
)
def test_experts_start_as_experts_of_their_width(there, wanted, settings, says):
    start = WarmStart(StartConfig(from_run="runs/a", **settings), Path("runs/a"), there, 2)
    if says is None:
        start.check(run_config(model=wanted))
        return
    with pytest.raises(UserError) as refusal:
        start.check(run_config(model=wanted))
    assert says in str(refusal.value)
