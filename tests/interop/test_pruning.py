"""Pruning: which experts stay, and that what is left computes what it should."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.interop.pruning import Kept, check_prunable, keep, prune, routed, spread
from switchx.model import NO_NOISE, Groupings, Model, ModelConfig
from switchx.training.metrics import layer_names
from tests.helpers import init, random_inputs, switch_config, tiny_config

UNEVEN = dict(num_layers=4, num_decoder_layers=3)


def model_of(E=4, sizes=None, **switch):
    """A model with room for every token, whose routers are sure of what they choose."""
    room = dict(num_experts=E, eval_capacity_factor=float(E))
    config = tiny_config(switch=switch_config(**room, **switch), **(sizes or {}))

    def decided(path, leaf):
        return leaf * 1e6 if "router" in jax.tree_util.keystr(path) else leaf

    return config, jax.tree_util.tree_map_with_path(decided, init(config, seed=1))


def wanted_of(config: ModelConfig, kept: Kept) -> ModelConfig:
    fields = {name.split(".")[1]: value for name, value in kept.fields(config).items()}
    if "switch" in fields:
        return dataclasses.replace(config, switch=None)
    return dataclasses.replace(config, switch=dataclasses.replace(config.switch, **fields))


def forward(config, params):
    """Logits of the real tokens, and the experts that each layer's tokens choose."""
    inputs = random_inputs()
    groupings = Groupings.of(config.switch, train=False).recorded()

    def run(params):
        output = Model.of(config).bind(params)(*inputs, NO_NOISE, groupings=groupings)
        routed = [stack for stack in (output.encoder_N, output.decoder_N) if stack is not None]
        return output.logits_BLV, [stack.assignment for stack in routed]

    logits_BLV, stacks = jax.jit(run)(params)
    chosen = [
        np.asarray(expert_GSJ)[np.asarray(kept_GSJ)]
        for stack in stacks
        for expert_GSJ, kept_GSJ in zip(stack.expert_GSJ, stack.kept_GSJ, strict=True)
    ]
    return np.asarray(logits_BLV)[np.asarray(inputs.decoder_mask_BL)], chosen


def pruned(config, params, kept):
    wanted = wanted_of(config, kept)
    made = jax.jit(lambda params: prune(config, wanted, kept, params))(params)
    assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, Model.of(wanted).shapes)
    return wanted, made


@pytest.mark.parametrize("switch", [dict(experts_in="both"), dict(top_k=2)], ids=["one", "two"])
def test_experts_that_no_token_uses_are_not_missed(switch):
    """Bit by bit with one choice a token, since the probability of all others is zero here; of two
    gates the sum of all exponentials cancels, but its rounding stays."""
    config, params = model_of(E=24, every=1, **switch)
    whole, chosen = forward(config, params)
    of = routed(config)
    counts = [np.bincount(experts, minlength=24) for experts in chosen]
    assert len(of) == len(counts) == len(layer_names(config))
    most = max(int(np.count_nonzero(count)) for count in counts)
    assert 2 < most < 24
    kept = keep([count.astype(float) for count in counts], of, most, dense=False)
    for one, count in zip(of, counts, strict=True):
        assert set(np.flatnonzero(count)) <= set(kept.experts[one])
    left, _ = forward(*pruned(config, params, kept))
    if config.switch.top_k == 1:
        np.testing.assert_array_equal(left, whole)
    np.testing.assert_allclose(left, whole, rtol=1e-5, atol=1e-5)


def test_one_expert_is_a_dense_layer():
    """The router of one expert gives it every token with a gate of 1: a plain T5 computes that.

    Experts come first in a block of the encoder, second in one of the decoder.
    """
    where = dict(encoder_sparse=(0,), decoder_sparse=2, experts_in="both")
    config, params = model_of(sizes=dict(activation="geglu"), **where)
    of = routed(config)
    scores = list(np.random.default_rng(0).random((len(of), 4)))
    one, dense = (pruned(config, params, keep(scores, of, 1, dense=d)) for d in (False, True))
    assert (one[0].switch.num_experts, dense[0].switch) == (1, None)
    found, expected = forward(*dense)[0], forward(*one)[0]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for at, score_E in zip(of, scores, strict=True):
        theirs, ours = (row(model, at.stack, at.layer)[at.part] for model in (one, dense))
        whole = row((config, params), at.stack, at.layer)[at.part]["switch"]["experts"]
        ours = ours["dense"] if at.part == "feed_forward" else ours
        names = {"wi_DF": "wi_EDF", "gate_DF": "gate_EDF", "wo_FD": "wo_EFD"}
        names |= {"query_DT": "query_EDT", "key_DT": "key_value_EDT", "value_DT": "key_value_EDT"}
        for name in ours.keys() - {"out_TD"}:
            expert = whole[names[name]][np.argmax(score_E)]
            np.testing.assert_array_equal(ours[name], expert)
            np.testing.assert_array_equal(theirs["switch"]["experts"][names[name]][0], expert)


def row(model, stack, layer):
    """One layer's parameters."""
    config, params = model
    place = config.stacks[stack].place(layer)
    return jax.tree.map(
        lambda x: x[place.block], params[stack][place.blocks][f"layer_{place.layer}"]
    )


def test_a_budget_goes_where_it_keeps_most():
    """Against every choice of a number and of the layers that have so many."""
    config, _ = model_of(E=5, sizes=UNEVEN, every=1)
    of, rng = routed(config), np.random.default_rng(2)
    for n in (2, 3, 4):
        score_NE = list(rng.dirichlet(np.full(5, 0.3), size=len(of)))
        kept = spread(score_NE, of, n, least=1)
        ranked = -np.sort(-np.array(score_NE), axis=1)
        best = max(
            ranked[:, 0].sum() + ranked[list(layers), 1:size].sum()
            for size in range(2, 6)
            for number in range(len(of) + 1)
            for layers in itertools.combinations(range(len(of)), number)
            if len(of) - number + size * number <= n * len(of)
        )
        found = sum(score_NE[i][[*kept.experts[one]]].sum() for i, one in enumerate(of))
        assert sum(map(len, kept.experts.values())) <= n * len(of)
        assert {len(experts) for experts in kept.experts.values()} <= {1, kept.most}
        np.testing.assert_allclose(found, best, rtol=1e-12)


def test_layers_of_several_sizes():
    """Each layer's parameters are those of the experts that it keeps, dense or not."""
    config, params = model_of(E=5, sizes=UNEVEN, every=1)
    of = routed(config)
    score_NE = list(np.random.default_rng(9).dirichlet(np.full(5, 0.3), size=len(of)))
    kept = spread(score_NE, of, 2, least=1)
    assert 0 < sum(map(kept.is_dense, of)) < len(of)
    scale_E = np.arange(1.0, 6.0)
    kept = dataclasses.replace(kept, scales={one: tuple(scale_E) for one in of[::2]})
    wanted, made = pruned(config, params, kept)
    for at, score_E in zip(of, score_NE, strict=True):
        before, after = (
            row(model, at.stack, at.layer) for model in ((config, params), (wanted, made))
        )
        theirs, size = before["feed_forward"]["switch"], len(kept.experts[at])
        experts = np.sort(np.argsort(-score_E)[:size])
        wi_EDF, wo_EFD = (theirs["experts"][name][experts] for name in ("wi_EDF", "wo_EFD"))
        if at in kept.scales:
            wo_EFD = wo_EFD * scale_E[experts].astype(np.float32)[:, None, None]
        if kept.is_dense(at):
            ours = after["feed_forward"]["dense"]
            np.testing.assert_array_equal(ours["wi_DF"], wi_EDF[0])
            np.testing.assert_array_equal(ours["wo_FD"], wo_EFD[0])
        else:
            ours = after["feed_forward"]["switch"]
            np.testing.assert_array_equal(ours["experts"]["wi_EDF"], wi_EDF)
            np.testing.assert_array_equal(ours["experts"]["wo_EFD"], wo_EFD)
            kernel_DE = theirs["router"]["kernel_DE"][:, experts]
            np.testing.assert_array_equal(ours["router"]["kernel_DE"], kernel_DE)
        np.testing.assert_array_equal(after["attention"]["out_TD"], before["attention"]["out_TD"])


@pytest.mark.parametrize(
    ("switch", "experts", "dense", "message"),
    [
        (dict(top_k=2), 1, False, "--experts=1 must be from 2 to 3: the model in --from_dir=run"),
        (dict(top_k=2), 4, True, "--experts=4 must be from 2 to 3: the model in --from_dir=run"),
        (dict(num_experts=1), 1, False, "--experts=1 must be left out for --to_dense: the model"),
        (dict(encoder_routing="experts_choose"), 2, False, "by which all experts get as many"),
        (dict(extra_dense=True), None, True, "has SwitchConfig.extra_dense=True, a dense feed-f"),
        (dict(expert_widths=((2, 32), (2, 64))), 2, False, "SwitchConfig.expert_widths=((2, 32), "),
        (None, 2, False, "--from_dir=run holds a dense model, which has no experts"),
        (dict(top_k=2), None, True, None),
        (dict(extra_dense=True), 2, False, None),
    ],
)
def test_what_cannot_be_pruned_so(switch, experts, dense, message):
    config = tiny_config(switch=None if switch is None else switch_config(**switch))
    if message is None:
        check_prunable(config, "run", experts, dense)
        return
    with pytest.raises(UserError) as refused:
        check_prunable(config, "run", experts, dense)
    assert message in str(refused.value)
