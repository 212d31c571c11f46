"""What a compiled TPU program does for attention: kernels, and no array of queries by keys."""

import re

import jax
import pytest
from jax.experimental import topologies

from switchx.planning.flops import count_flops
from switchx.sharding import MeshConfig
from switchx.training.step import lower_train_step
from tests.planning.helpers import BATCH, INPUTS, TARGETS, setup

pytest.importorskip("libtpu")


def test_the_training_step_holds_no_logits_of_attention():
    """Forward and backward kernels of an encoder's and a decoder's attention, and of the cross."""
    devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    planned = setup(MeshConfig(2, 1, 2), None, devices, d_kv=64, num_heads=4, dtype="bfloat16")
    text = lower_train_step(planned).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 6
    pairs = {f"{L},{M}" for L in (INPUTS, TARGETS) for M in (INPUTS, TARGETS)}
    shapes = re.findall(r"\[([\d,]+)\]", text)
    whole = {s for s in shapes if any(s.startswith(f"{BATCH // 2},2,{p}") for p in pairs)}
    assert not whole


def test_its_products_are_counted():
    """As whole arrays' on a CPU, but for a sum over rows that is a product with ones there."""
    devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    model = dict(d_kv=64, num_heads=4, dtype="bfloat16")
    by_blocks, whole = (
        count_flops(setup(MeshConfig(2, 1, 2), None, each, **model))
        for each in (devices, jax.devices()[:4])
    )
    assert by_blocks.model == whole.model
    assert whole.executed - by_blocks.executed == 2 * BATCH * 4 * (INPUTS**2 + TARGETS**2)
