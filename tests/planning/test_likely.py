"""The likely time of a step, from a program written by hand."""

import dataclasses
import math

import numpy as np
import pytest

from switchx.planning import likely
from switchx.planning.chips import CHIPS
from switchx.planning.estimate import Bound
from switchx.planning.network import Network

CHIP = CHIPS["v5e"]
# A product of 3 million cycles, two ms of 1.5 GHz, and an exchange of 4 MB among 4 chips in a ring.
PROGRAM = """HloModule step

%f (b: bf16[1024,2048]) -> bf16[1024,2048] {
  %b = bf16[1024,2048]{1,0} parameter(0)
  ROOT %negate = bf16[1024,2048]{1,0} negate(%b)
}

ENTRY %main (a: bf16[1024,2048]) -> bf16[1024,2048] {
  %a = bf16[1024,2048]{1,0} parameter(0)
  %c = bf16[1024,2048]{1,0} fusion(%a), calls=%f, backend_config={"estimated_cycles":"3000000"}
  ROOT %d = bf16[1024,2048]{1,0} all-to-all(%c), channel_id=1, replica_groups={{0,1,2,3}}
}
"""
NETWORK = Network(
    {"expert": 4}, np.zeros(4, int), np.arange(4)[:, None], (True,), CHIP.fabric_rate / 4, np.inf
)
BOUND = Bound(1e-3, 1e-3, {"ici": 1e-4, "dcn": 0.0}, (), 1e-3, "compute", 1e6, 0.5, 1.0)


def test_cycles_and_hops_each_with_its_factor():
    found = likely.likely(PROGRAM, CHIP, NETWORK, BOUND)
    computation = likely.COMPUTATION["v5e"] * 2e-3
    moving = likely.NETWORK * 2**22 * 4 / 8 / 50e9  # k / 8 of the array through each link
    assert found.computation == pytest.approx(computation)
    assert found.network == pytest.approx(moving)
    assert found.seconds == pytest.approx(computation + moving)
    assert found.high / found.seconds == pytest.approx(math.exp(likely.ERROR))
    assert found.seconds / found.low == pytest.approx(math.exp(likely.ERROR))


def test_a_kernel_takes_its_products_time():
    kernel = """  %c = bf16[1024,2048]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"197000000000"}}}"""
    lines = [kernel if "%c = " in line else line for line in PROGRAM.splitlines()]
    found = likely.likely("\n".join(lines), CHIP, NETWORK, BOUND)
    expected = likely.COMPUTATION["v5e"] * likely.KERNELS * 1e-3
    assert found.computation == pytest.approx(expected)


def test_it_is_no_less_than_the_bound():
    slow = dataclasses.replace(BOUND, seconds=1.0)
    found = likely.likely(PROGRAM, CHIP, NETWORK, slow)
    assert (found.seconds, found.low) == (1, 1)
    assert found.high > 1


def test_nothing_is_said_of_gpus():
    assert likely.likely(PROGRAM, CHIPS["h100"], NETWORK, BOUND) is None
