"""Fingerprints equal a plain loop's, on every mesh, and change with every bit and every place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from switchx.sharding import MeshConfig, make_mesh
from switchx.training.checkpoints.fingerprints import fingerprints, first_difference

MASK = 2**32 - 1


def mix(x):
    x = (x ^ x >> 16) * 0x85EBCA6B & MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & MASK
    return x ^ x >> 16


def oracle(array):
    """The two sums in Python's own integers."""
    words = array.reshape(-1).view(f"u{array.dtype.itemsize}").tolist()
    sums = [
        sum(mix(bits ^ mix(place ^ seed)) for place, bits in enumerate(words)) & MASK
        for seed in (0x9E3779B9, 0x85EBCA6B)
    ]
    return "".join(f"{number:08x}" for number in sums)


def of(array, mesh=None, spec=()):
    """Of an array on a mesh, or on one device."""
    mesh = make_mesh(mesh) if mesh else make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return fingerprints({"a": jax.device_put(array, sharding)})["a"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
def test_it_is_the_plain_loops(dtype):
    array = np.asarray(jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 3)) * 50, dtype))
    assert of(array) == f"{dtype}[4,8,3] {oracle(array)}"


def test_every_mesh_gives_the_same():
    array = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    alone = of(array)
    for mesh, spec in [
        (MeshConfig(8, 1, 1), (("data",),)),
        (MeshConfig(2, 2, 2), ("expert", ("data", "model"))),
        (MeshConfig(2, 4, 1), ()),
    ]:
        assert of(array, mesh, spec) == alone


def test_each_bit_and_each_place_counts():
    array = np.random.default_rng(0).normal(size=6).astype(np.float32)
    seen = {of(array)}
    for place in range(array.size):
        for bit in range(32):
            changed = array.copy()
            changed.view(np.uint32)[place] ^= np.uint32(1 << bit)
            seen.add(of(changed))
    assert len(seen) == 1 + 6 * 32
    assert of(np.zeros(4, np.float32)) != of(np.array([0, 0, 0, -0.0], np.float32))
    assert of(array[[1, 0, 2, 3, 4, 5]]) not in seen
    nan = np.array([np.nan], np.float32)
    assert of(nan) == of(nan)


def test_the_array_that_differs_is_named():
    saved = {"params/a": "float32[2] 00", "params/b": "float32[2] 11"}
    assert first_difference(saved, saved) is None
    assert first_difference(saved, {**saved, "params/b": "float32[2] 10"}) == "params/b"
