"""One model's parameters as another's, against NumPy."""

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import Model
from switchx.training.adapting import adapt, check, named
from switchx.training.config import StartConfig
from tests.helpers import switch_config, tiny_config

KERNEL, WI = (
    f"encoder/blocks/layer_1/feed_forward/switch/{part}"
    for part in ("router/kernel_DE", "experts/wi_EDF")
)


def random_params(config, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), Model.of(config).shapes
    )


def adapted(there, wanted, **settings):
    """Names and values before and after; the new model's own parameters are of another seed."""
    config = StartConfig(from_run="runs/a", **settings)
    params, axes = random_params(there, seed=1), Model.of(wanted).axes
    check(config, Model.of(there).shapes, Model.of(wanted).shapes, axes)
    made = adapt(config, params, random_params(wanted, seed=2), axes, jax.random.key(0))
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
        ({}, dict(experts=(1, 1)), "START_EXPERTS=(1, 1) must be different numbers from 0 to 3: "),
    ],
)
def test_what_no_rule_allows_is_named(wanted, settings, says):
    with pytest.raises(UserError) as refused:
        adapted(tiny_config(), tiny_config(**wanted), **settings)
    assert says in str(refused.value)
    assert "START_FROM='runs/a' has" in str(refused.value)


def test_a_parameter_that_is_not_there_cannot_be_new():
    with pytest.raises(UserError, match=r"START_FRESH=\('\*/ruoter/\*',\): .* is no parameter of"):
        adapted(tiny_config(), tiny_config(), fresh=("*/ruoter/*",))
