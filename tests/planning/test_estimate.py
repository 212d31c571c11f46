"""The bound on a step's time, by hand."""

import pytest

from switchx.planning.estimate import Rates, least_memory_bytes, step_bound
from switchx.planning.program import Collective

RATES = Rates(flops=100.0, memory=50.0, ici=10.0, dcn=1.0)
AXES = {"replica": 2, "data": 4, "expert": 1, "model": 1}


def bound(*collectives, flops=0, memory=0):
    return step_bound(
        executed_flops=flops,
        model_flops=0.5 * flops,
        memory_bytes=memory,
        collectives=collectives,
        axes=AXES,
        rates=RATES,
        tokens=1000,
        steps=43_200,
    )


def test_what_takes_longest_is_the_bound():
    found = bound(flops=200, memory=50)
    assert (found.compute, found.memory, found.seconds, found.limited_by) == (2, 1, 2, "compute")
    assert (found.tokens_per_second, found.utilisation, found.days) == (500, 0.5, 1)
    found = bound(flops=200, memory=200)
    assert (found.seconds, found.limited_by, found.utilisation) == (4, "memory", 0.25)
    sums = Collective("all-reduce", "f32", ("data",), 1, 40, 60)
    found = bound(sums, sums, flops=200)
    assert found.network == {"ici": 12, "dcn": 0}
    assert (found.seconds, found.limited_by) == (12, "ici")


@pytest.mark.parametrize(
    ("kind", "axes", "ici", "dcn"),
    [
        # 80 bytes. Of two slices of four chips: 20 bytes each, once there and once back.
        ("all-reduce", ("replica", "data"), 2 * 60, 2 * 0.5 * 20),
        ("all-gather", ("replica", "data"), 60, 0.5 * 20),
        ("reduce-scatter", ("replica", "data"), 60, 0.5 * 20),
        # Eight parts of 10 bytes: one stays, three go to neighbours, four away.
        ("all-to-all", ("replica", "data"), 30, 40),
        ("ragged-all-to-all", ("replica", "data"), 30, 40),
        ("collective-permute", ("replica", "data"), 0, 80),
        ("all-reduce", ("replica",), 0, 80),
        ("all-to-all", ("replica",), 0, 40),
    ],
)
def test_what_leaves_the_slice_goes_over_the_slower_network(kind, axes, ici, dcn):
    found = bound(Collective(kind, "f32", axes, 1, 80, 70))
    assert found.network == {"ici": ici / 10, "dcn": dcn / 1}


def test_least_memory_bytes():
    assert least_memory_bytes(arguments=100, outputs=10, temporaries=1) == 112
