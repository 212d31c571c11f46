"""Settings of routing that are refused, each with the reason."""

import pytest

from switchx.errors import UserError
from tests.helpers import switch_config

# Settings that make no sense together, and the names that the sentence must hold.
REFUSED = [
    (dict(second_policy=policy), ("second_policy", policy, "top_k"))
    for policy in ("never", "threshold", "random")
] + [
    (dict(reroute_rounds=1, top_k=2), ("reroute_rounds", "top_k")),
    (dict(reroute_rounds=1, dispatcher="ragged"), ("reroute_rounds", "dispatcher", "ragged")),
    (dict(reroute_rounds=4, num_experts=4), ("reroute_rounds", "NUM_EXPERTS")),
    (dict(priority="gate", dispatcher="ragged"), ("priority", "gate", "dispatcher", "ragged")),
    (
        dict(priority="gate", encoder_routing="experts_choose"),
        ("priority", "gate", "encoder_routing", "experts_choose"),
    ),
    (
        dict(dispatcher="ragged", encoder_routing="experts_choose"),
        ("dispatcher", "ragged", "encoder_routing", "experts_choose"),
    ),
    (dict(ragged_pools=2), ("RAGGED_POOLS=2", "DISPATCHER='index'", "leave it at None")),
    (dict(ragged_pools=3, dispatcher="ragged"), ("RAGGED_POOLS=3", "NUM_EXPERTS=4: use a divisor")),
    (
        dict(ragged_pools=2, dispatcher="ragged", num_experts=6, expert_widths=((3, 8), (3, 9))),
        ("RAGGED_POOLS=2", "the 3 experts of one width"),
    ),
    (
        dict(ragged_pools=2, dispatcher="ragged", group_padding="flaxformer"),
        ("group_padding='flaxformer'", "RAGGED_POOLS=2"),
    ),
    (dict(top_k=2, encoder_routing="experts_choose"), ("top_k", "encoder_routing")),
    (dict(reroute_rounds=1, encoder_routing="experts_choose"), ("reroute_rounds", "encoder_rout")),
    (dict(expert_widths=((4, 8),), experts_in="both"), ("experts_in='both'", "expert_widths")),
    (dict(expert_widths=((4, 8),), group_padding="flaxformer"), ("group_padding", "expert_wid")),
    (dict(balance_by="cost"), ("balance_by='cost'", "expert_widths=None")),
    (dict(balance_bias=0.1, encoder_routing="experts_choose"), ("balance_bias", "encoder_rout")),
    (dict(balance_loss_over="batch", encoder_routing="experts_choose"), ("balance_loss_over",)),
    (dict(balance_quantile=0.5, balance_bias=0.1), ("balance_quantile", "BALANCE_BIAS=0.1")),
    (dict(balance_quantile=1.0, exploration="sample"), ("BALANCE_QUANTILE=1.0", "sample")),
    (dict(balance_bias=0.1, top_k=4, num_experts=4), ("BALANCE_BIAS=0.1", "4 of NUM_EXPERTS=4")),
    (
        dict(balance_quantile=0.5, second_policy="random", top_k=2),
        ("second_policy", "BALANCE_QUANTILE=0.5"),
    ),
]


@pytest.mark.parametrize(("changes", "names"), REFUSED)
def test_settings_that_make_no_sense_together_are_refused(changes, names):
    with pytest.raises(UserError) as refusal:
        switch_config(**changes)
    sentence = str(refusal.value)
    assert all(name in sentence for name in names), sentence
    assert "\n" not in sentence
    # Each alone is accepted.
    for name, value in changes.items():
        if name not in ("second_policy", "num_experts", "balance_by", "ragged_pools"):
            experts = sum(n for n, _ in value) if name == "expert_widths" else 5
            switch_config(**{"num_experts": experts, name: value})


@pytest.mark.parametrize(
    "name",
    [
        "exploration",
        "second_policy",
        "priority",
        "encoder_routing",
        "dispatcher",
        "balance_loss_over",
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(name):
    with pytest.raises(UserError, match=rf"{name}='sometimes' is not one of \w+, \w+"):
        switch_config(**{name: "sometimes"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("second_threshold", 0.0), ("router_dropout_rate", 1.0), ("reroute_rounds", -1)],
)
def test_numbers_out_of_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name}={value}"):
        switch_config(top_k=2, **{name: value})


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        (((4, 8), (2, 16)), "are 6 experts, but NUM_EXPERTS=4: let the numbers"),
        (((2, 8), (2, 0)), "whole numbers of at least 1, as in"),
        (((2, 8), (2, 0.5)), "must be pairs of a number of experts and their d_ff"),
        ((4, 8), "must be pairs"),
        ([(2, 8), (2, 16)], "must be pairs"),
        ((), "must be pairs"),
    ],
)
def test_widths_that_are_none_are_refused(widths, says):
    with pytest.raises(UserError) as refusal:
        switch_config(expert_widths=widths)
    assert f"SwitchConfig.expert_widths={widths!r} " in str(refusal.value)
    assert says in str(refusal.value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, None, "0.1"])
def test_a_balance_that_is_no_number_is_refused(value):
    for name, also in (("balance_bias", "0"), ("balance_quantile", "0, up to 1")):
        with pytest.raises(UserError) as refusal:
            switch_config(**{name: value})
        assert str(refusal.value).endswith(f" must be a number of at least {also}.")
        assert str(refusal.value).startswith(f"{name.upper()}={value!r} ")
    with pytest.raises(UserError, match=r"BALANCE_QUANTILE=1.5 must be .* up to 1\.$"):
        switch_config(balance_quantile=1.5)
