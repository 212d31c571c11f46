"""What is said of experts is what the routing oracle, plain loops and hand-made tokens say."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from switchx.evaluation.inspection import agreement as numbers
from switchx.evaluation.inspection.kinds import KINDS, kind_of
from switchx.evaluation.inspection.seen import look
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.state import Setup
from tests import helpers
from tests.model import routing_oracle as oracle
from tests.training.helpers import BATCH, INPUTS, TARGETS, packed_batch, run_config

FACTOR = 0.75  # of evaluation: full experts in either stack
BATCHES = [packed_batch(7), packed_batch(8)]


CHOSEN = dict(num_experts=2, encoder_routing="experts_choose")


@functools.cache
def looked(**switch):
    """Two packed batches, a source each, looked at on one device with parameters that matter.

    With so few experts the routers' whole distribution is in `Choices`.
    """
    run = run_config(mesh=MeshConfig(1, 1, 1), d_model=16, d_ff=16, num_heads=2)
    model = helpers.with_switch(run.model, eval_capacity_factor=FACTOR, **switch)
    packed = dataclasses.replace(run.eval_batch, packed=True)
    run = dataclasses.replace(run, model=model, eval_batch=packed)
    setup = Setup.of(run, make_mesh(run.mesh, jax.devices()[:1]))
    params = jax.tree.map(lambda x: x * 10 if x.ndim > 2 else x, helpers.init(run.model, seed=3))
    params = jax.device_put(params, setup.shardings.params)
    return look(setup, params, [[BATCHES[0]], [BATCHES[1]]])


@pytest.mark.parametrize(
    ("switch", "encoder", "decoder"),
    [
        (
            CHOSEN,
            oracle.Policy(experts_choose=True),
            oracle.Policy(),
        ),
        (
            dict(num_experts=3, top_k=2, second_policy="threshold", second_threshold=0.3),
            oracle.Policy(top_k=2, second="threshold", threshold=0.3),
            oracle.Policy(top_k=2, second="threshold", threshold=0.3),
        ),
    ],
    ids=["experts choose and top 1", "top 2 with a threshold"],
)
def test_ways_gates_loads_and_drops_are_the_oracles(switch, encoder, decoder):
    E, config = switch["num_experts"], helpers.switch_config(**switch)
    fields = (("encoder_input_tokens", INPUTS), ("decoder_target_tokens", TARGETS))
    for seen, policy, (field, size) in zip(
        looked(**switch), (encoder, decoder), fields, strict=True
    ):
        mask_GS = np.concatenate([b[field] for b in BATCHES]) > 0  # a group is a row here
        assert len(seen.token_T) == mask_GS.sum()
        assert (seen.source_T == np.repeat([0, 1], [mask_GS[:16].sum(), mask_GS[16:].sum()])).all()

        def grid(x_T, mask_GS=mask_GS):
            full = np.zeros((*mask_GS.shape, *x_T.shape[1:]), x_T.dtype)
            full[mask_GS] = x_T
            return full

        choices = seen.choices
        prob_TE = np.zeros((len(seen.token_T), E))
        np.put_along_axis(prob_TE, choices.likely_NBLK[0], choices.prob_NBLK[0], axis=1)
        room = oracle.capacity(FACTOR, size, E, 1)
        causal = seen.name == "decoder"
        routed = [
            oracle.route(np.log(np.maximum(p_SE, 1e-30)), mask_S, policy, room, causal)
            for p_SE, mask_S in zip(grid(prob_TE), mask_GS, strict=True)
        ]

        def of_all(name, mask_GS=mask_GS, routed=routed):
            return np.stack([getattr(one, name) for one in routed])[mask_GS]

        np.testing.assert_array_equal(choices.kept_NBLJ[0], of_all("kept_SJ"))
        np.testing.assert_array_equal(choices.expert_NBLJ[0], of_all("expert_SJ"))
        np.testing.assert_allclose(choices.gate_NBLJ[0], of_all("gate_SJ"), rtol=1e-5)
        asked_E = np.sum([one.asked_E for one in routed], axis=0)
        expected_E = asked_E / asked_E.sum()
        np.testing.assert_allclose(seen.load(0, config), expected_E)
        dropped_T = ~of_all("kept_SJ").any(axis=1)
        np.testing.assert_array_equal(seen.dropped[0], dropped_T)
        assert 0 < dropped_T.sum() < len(dropped_T)
        entropy_T = -np.sum(prob_TE * np.log(np.maximum(prob_TE, 1e-30)), axis=1)
        np.testing.assert_allclose(choices.entropy_NBL[0], entropy_T, atol=1e-5)
        best_T = np.where(dropped_T, -1, of_all("gate_SJ").argmax(axis=1))
        expected = best_T if policy.experts_choose else of_all("expert_SJ")[:, 0]
        np.testing.assert_array_equal(seen.main[0], expected)


def test_what_comes_next_ends_with_its_example():
    encoder, decoder = looked(**CHOSEN)
    for seen, stack, field in (
        (encoder, "encoder", "encoder_input_tokens"),
        (decoder, "decoder", "decoder_target_tokens"),
    ):
        found = {}
        for example, token, after in zip(
            seen.example_T.tolist(), seen.token_T.tolist(), seen.next_T.tolist(), strict=True
        ):
            found.setdefault(example, []).append((token, after))
        expected = [
            packed[field][row][packed[f"{stack}_segment_ids"][row] == n].tolist()
            for packed in BATCHES
            for row in range(BATCH)
            for n in range(1, packed[f"{stack}_segment_ids"][row].max() + 1)
        ]
        if stack == "encoder":
            assert [[token for token, _ in pairs] for pairs in found.values()] == expected
            expected = [[*tokens[1:], 0] for tokens in expected]
        assert [[after for _, after in pairs] for pairs in found.values()] == expected
    assert (encoder.nats_T == 0).all()
    assert (decoder.nats_T > 0).all()
    assert set(encoder.example_T) == set(decoder.example_T)


RNG = np.random.default_rng(0)
EXPERT_T, TOKEN_T, SOURCE_T = RNG.integers(-1, 4, 60), RNG.integers(0, 7, 60), np.arange(60) // 25


def test_agreement_is_counted_over_pairs():
    def share(same):
        pairs = [
            EXPERT_T[a] == EXPERT_T[b]
            for a, b in itertools.permutations(range(60), 2)
            if min(EXPERT_T[a], EXPERT_T[b]) >= 0 and same(a, b)
        ]
        return np.mean(pairs)

    found = numbers.agreement(EXPERT_T, TOKEN_T)
    assert found.found == pytest.approx(share(lambda a, b: TOKEN_T[a] == TOKEN_T[b]))
    assert found.chance == pytest.approx(share(lambda a, b: True))
    assert numbers.agreement(np.arange(4), np.arange(4)) == (None, 0.0)
    nothing = np.zeros(0, int)
    assert numbers.agreement(nothing, nothing) == (None, None)


def test_a_source_is_held_against_what_its_tokens_alone_give():
    """sum_t p(t | source) p(expert | t), each from counts; and a router of tokens alone fits it."""
    found_SE, expected_SE = numbers.by_source(EXPERT_T, TOKEN_T, SOURCE_T, 3, 4)
    real = EXPERT_T >= 0
    for source, e in itertools.product(range(3), range(4)):
        of_T = real & (source == SOURCE_T)
        assert found_SE[source, e] == pytest.approx(np.mean(EXPERT_T[of_T] == e))
        alone = sum(
            np.mean(TOKEN_T[of_T] == t) * np.mean(EXPERT_T[real & (t == TOKEN_T)] == e)
            for t in np.unique(TOKEN_T[of_T])
        )
        assert expected_SE[source, e] == pytest.approx(alone)
    sizes_S = np.bincount(SOURCE_T[real])
    weights_S = sizes_S * (sizes_S - 1) / np.sum(sizes_S * (sizes_S - 1))
    expected = sum(w * np.sum(row**2) for w, row in zip(weights_S, expected_SE, strict=True))
    assert numbers.by_tokens_alone(expected_SE, sizes_S) == pytest.approx(expected)
    by_token = np.array([0, 1, 1, 2, 3, 3, 0])[TOKEN_T]
    np.testing.assert_allclose(*numbers.by_source(by_token, TOKEN_T, SOURCE_T, 3, 4))


def test_saturation_and_flows_are_counts():
    then_T = np.where(np.arange(60) % 3, EXPERT_T, 1)
    found = numbers.saturation(EXPERT_T, then_T, 4)
    assert found.found == pytest.approx(np.mean((then_T == EXPERT_T) & (EXPERT_T >= 0)))
    chance = sum(np.mean(e == EXPERT_T) * np.mean(then_T == e) for e in range(4))
    assert found.chance == pytest.approx(chance)
    rows, others = numbers.flows(EXPERT_T, then_T, most=5)
    counts = {(a, b): c for a, b, c in rows}
    for (a, b), count in counts.items():
        assert count == np.sum((a == EXPERT_T) & (b == then_T))
    assert sum(counts.values()) + others == np.sum((EXPERT_T >= 0) & (then_T >= 0))
    assert len(rows) == 5
    assert [c for *_, c in rows] == sorted(counts.values(), reverse=True)


def test_a_token_is_of_the_kind_that_a_reader_would_say():
    said = {
        "<extra_id_3>": "blanks",
        "<start>": "the start and the end",
        "</s>": "the start and the end",
        " ": "spaces",
        "\n": "spaces",
        " 12": "numbers",
        "½": "numbers",
        "(": "signs",
        " ==": "signs",
        "<b>": "insides of words",
        " Über": "beginnings of words",
        "ing": "insides of words",
        "x2": "insides of words",
        "語": "insides of words",
    }
    assert {piece: KINDS[kind_of(piece)] for piece in said} == said
