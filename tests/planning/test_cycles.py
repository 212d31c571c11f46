"""The compiler's estimates, added up: against closed forms of what a program has to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.planning.chips import CHIPS
from switchx.planning.cycles import PARTS, Cost, costliest, costs, total
from switchx.planning.devices import compile_only_devices
from switchx.planning.network import Network
from switchx.planning.topology import parse
from tests.planning.test_program import LOOPS

CHIP = CHIPS["v5e"]
# Behind a switch, so that a chip's rate is all there is to a collective.
NETWORK = Network({"data": 2, "expert": 4}, np.zeros(8, int), np.empty((8, 0)), (), 200e9, np.inf)
T, D, V = 2048, 512, 16384
BFLOAT, FLOAT = 2, 4


def test_what_is_estimated_and_what_is_not():
    """The loop's product 3 x 5 + 1 times, its kernel's rows and two operands as often."""
    found = costs(LOOPS, CHIP, NETWORK)
    whole = total(found.values())
    assert whole.cycles == 7 + 16 * 100
    assert whole.unpriced == 16
    moved = (4 * 128 + 2 * 8 * 128) * BFLOAT / CHIP.hbm_rate
    summed = 2 * 8 * 128 * BFLOAT // 2 / NETWORK.link  # among two
    assert found["sums"] == Cost(priced=pytest.approx(16 * summed * CHIP.clock))
    assert found["rest"].priced == pytest.approx(16 * moved * CHIP.clock)


def compiled(layers: int) -> str:
    """A product in each turn of a loop, rows of a table, and a pass over an array."""

    def function(x_TD, kernel_NDD, table_VD, token_T):
        def layer(x_TD, kernel_DD):
            return jax.nn.relu(x_TD @ kernel_DD), None

        with jax.named_scope("dispatch"):
            x_TD = x_TD + table_VD[token_T].astype(jnp.bfloat16)
        with jax.named_scope("encoder"):
            x_TD, _ = jax.lax.scan(layer, x_TD, kernel_NDD)
        with jax.named_scope("optimizer"):
            return x_TD.astype(jnp.bfloat16), jnp.cos(table_VD)

    place = jax.sharding.SingleDeviceSharding(compile_only_devices(parse("v5e:1x1"))[0])
    shapes = [((T, D), "bfloat16"), ((layers, D, D), "bfloat16"), ((V, D), "float32"), ((T,), int)]
    arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype in shapes]
    return jax.jit(function).lower(*arrays).compile().as_text()


def test_a_compiled_program():
    pytest.importorskip("libtpu")
    five, ten = (costs(compiled(layers), CHIP, NETWORK) for layers in (5, 10))
    assert list(five) == list(PARTS)
    # Of each turn a product at less than the peak rate, and not at less than a third of it.
    product = 2 * T * D * D / (CHIP.peak_flops("bfloat16") / CHIP.clock)
    turns = ten["products"].cycles - five["products"].cycles
    assert 5 * product < turns < 15 * product
    assert five["products"].cycles == pytest.approx(turns, rel=0.1)
    # The table and x once read and once written, the kernels, and of another table T rows.
    least = 2 * (V * D * FLOAT + T * D * BFLOAT) + 5 * D * D * BFLOAT + T * D * FLOAT
    assert least < total(five.values()).bytes < 1.2 * least
    assert five["optimizer"].cycles > V * D * FLOAT * CHIP.clock / CHIP.hbm_rate
    assert five["dispatch"].unpriced == 1
    assert five["dispatch"].priced >= T * D * FLOAT * CHIP.clock / CHIP.hbm_rate
    assert five["dispatch"].bytes < V * D * FLOAT / 2
    assert five["attention"] == five["exchange"] == Cost()


def test_the_costliest_add_up_to_the_whole():
    rows = costliest(LOOPS, CHIP)
    assert [row[:2] for row in rows[:1]] == [(1500, 15)]
    found = costs(LOOPS, CHIP, NETWORK)
    whole = total(found.values()).total - found["sums"].priced
    assert sum(row[0] for row in rows) == pytest.approx(whole)
