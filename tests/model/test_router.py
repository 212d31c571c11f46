"""Capacities against the oracle and the paper. What the router decides is in test_routing.py."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.model.router import expert_capacity
from switchx.model.routing import Pools
from tests.helpers import switch_config
from tests.model import routing_oracle as oracle


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    factor=st.sampled_from([0.5, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0]),
    tokens=st.integers(1, 5000),
    experts=st.integers(1, 300),
    top_k=st.sampled_from([1, 2]),
    least=st.sampled_from([1, 4]),
)
def test_capacity_equals_the_oracle(factor, tokens, experts, top_k, least):
    config = switch_config(
        num_experts=max(experts, top_k),
        top_k=top_k,
        train_capacity_factor=factor,
        eval_capacity_factor=2 * factor,
        min_capacity=least,
    )
    for train, used in ((True, factor), (False, 2 * factor)):
        expected = oracle.capacity(used, tokens, config.num_experts, least)
        assert expert_capacity(config, tokens, train) == expected


def test_capacities_of_the_paper():
    """Figure 3: six tokens over three experts have 2 slots at factor 1.0 and 3 at 1.5."""
    config = switch_config(num_experts=3, train_capacity_factor=1.0, eval_capacity_factor=1.5)
    assert expert_capacity(config, 6, train=True) == 2
    assert expert_capacity(config, 6, train=False) == 3


@pytest.mark.parametrize(
    ("pools", "train", "evaluate"),
    [
        (2, 62, 200),  # 1.25 * 100 / 2; all choices of all tokens
        (8, 15, 100),  # a token has one choice in a pool of one expert
        (4, 31, 200),
    ],
)
def test_slots_of_pools(pools, train, evaluate):
    room = dict(train_capacity_factor=1.25, eval_capacity_factor=9.0, min_capacity=1)
    ragged = dict(dispatcher="ragged", ragged_pools=pools)
    config = switch_config(num_experts=8, top_k=2, **ragged, **room)
    for in_training, slots in ((True, train), (False, evaluate)):
        assert expert_capacity(config, 100, in_training) == Pools((8,), pools, slots)
