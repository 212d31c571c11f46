"""The exchange of rows on one device: on a GPU by the ragged exchange, which no CPU has.

`scripts/on_gpu.sh` runs this there; meshes of several devices are in tests/sharding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from switchx.model.dispatch.exchange import Traffic, bring_back, send
from switchx.sharding import MeshConfig, make_mesh

ROWS, WIDTH = 8, 4
SIZES = (3, 0, 2)  # rows of each expert; the last three are nobody's


def test_rows_go_and_come_back_on_one_device():
    def there_and_back(x_RD):
        traffic = Traffic.of(jnp.asarray(SIZES, jnp.int32), 1)
        received_1RD = send(x_RD, traffic)
        return received_1RD, bring_back(2 * received_1RD, traffic)

    exchange = jax.shard_map(
        there_and_back,
        mesh=make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    rng = np.random.default_rng(0)
    x_RD, dy_RD = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    meant_R1 = np.arange(ROWS)[:, None] < sum(SIZES)
    received_1RD, back_RD = jax.jit(exchange)(x_RD)
    np.testing.assert_array_equal(received_1RD[0], np.where(meant_R1, x_RD, 0))
    np.testing.assert_array_equal(back_RD, np.where(meant_R1, 2 * x_RD, 0))
    dx_RD = jax.jit(jax.grad(lambda x_RD: jnp.sum(exchange(x_RD)[1] * dy_RD)))(x_RD)
    np.testing.assert_array_equal(dx_RD, np.where(meant_R1, 2 * dy_RD, 0))
