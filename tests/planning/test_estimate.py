"""The bound on a step's time, by hand."""

from switchx.planning.estimate import Rates, least_memory_bytes, step_bound

RATES = Rates(flops=100.0, memory=50.0)


def bound(ici=0, flops=0, memory=0):
    return step_bound(
        executed_flops=flops,
        model_flops=0.5 * flops,
        memory_bytes=memory,
        network={"ici": ici, "dcn": 0},
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
    found = bound(ici=12, flops=200)
    assert (found.seconds, found.limited_by) == (12, "ici")


def test_least_memory_bytes():
    assert least_memory_bytes(arguments=100, outputs=10, temporaries=1) == 112
