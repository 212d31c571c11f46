"""What the paper's layouts (its figure 9) move: exactly the closed forms, nothing else."""

import jax
import pytest

from switchx.planning.program import collectives
from switchx.sharding import MeshConfig, batch_shards
from tests.planning.helpers import (
    BATCH,
    INPUTS,
    TARGETS,
    D,
    E,
    H,
    compiled_text,
    setup,
)

LAYOUTS = {
    "model and data": (MeshConfig(2, 1, 4), None),
    "expert and data": (MeshConfig(1, 8, 1), {}),
    "expert, model and data": (MeshConfig(2, 2, 2), {}),
}
FLOAT = 4
SMALL = 512  # bytes of losses and statistics


def parameters(planned):
    """Bytes of a chip's parameters, not counting the split over `data`, by what they are."""
    sizes = dict.fromkeys(("table", "bias", "norm", "expert", "matrix"), 0)
    mesh = planned.mesh.shape
    is_axes = lambda node: isinstance(node, tuple)  # noqa: E731
    leaves = zip(
        jax.tree.leaves(planned.model.axes, is_leaf=is_axes),
        jax.tree.leaves(planned.model.shapes),
        strict=True,
    )
    for axes, leaf in leaves:
        what = "matrix"
        if "vocab" in axes:
            what = "table"
        elif "buckets" in axes:
            what = "bias"
        elif axes in (("embed",), ("layers", "embed")):
            what = "norm"
        elif "expert" in axes:
            what = "expert"
        parts = mesh["model"] if {"heads", "mlp", "vocab"} & set(axes) else 1
        parts *= mesh["expert"] if "expert" in axes else 1
        sizes[what] += leaf.size * FLOAT // parts
    return sizes


def biases(mesh):
    """Of every position: XLA sums their gradients before they are sorted into buckets."""
    return H // mesh["model"] * (INPUTS**2 + TARGETS**2) * FLOAT


def expected(planned):
    """Bytes by kind and axes (paper.md, section 2, item 10)."""
    mesh, sizes, sparse = planned.mesh.shape, parameters(planned), planned.run.model.switch
    batch = tuple(axis for axis in ("replica", "data", "expert") if mesh[axis] > 1)
    rows = BATCH // batch_shards(planned.mesh)
    moved = {}
    if batch:
        # The gradients. XLA sums that of each of the table's three uses apart.
        dense = sizes["matrix"] + sizes["norm"] + 3 * sizes["table"] + biases(mesh)
        moved["all-reduce", batch] = dense
    if sparse and mesh["data"] > 1:
        moved["all-reduce", ("data",)] = sizes["expert"]
    # E * C * d_model of each group, in each stack.
    slots = rows * E * sum(int(1.25 * length / E) for length in (INPUTS, TARGETS)) * D * FLOAT
    if mesh["expert"] > 1:
        moved["all-to-all", ("expert",)] = (2 + 2) * slots
    if mesh["model"] > 1:
        # [B/n, L, d_model] of what the embedding looks up, and of each block. Back: of each block
        # by its projections (on CPUs those of queries, keys and values apart), and the logits.
        inputs, targets = 1 + 1 + (3 + 2), 1 + 2 + (3 + 1) + 1
        if not sparse:
            inputs, targets, slots = inputs + 2, targets + 2, 0
        activations = (inputs * INPUTS + targets * TARGETS) * rows * D * FLOAT
        moved["all-reduce", ("model",)] = activations + 2 * slots
    return moved


def compare(planned, moved, row_sums=0):
    """Everything that moves is in `moved`, up to small sums: in all, `row_sums` over `model`."""
    found = {
        (each.kind, each.axes): each.bytes
        for each in collectives(compiled_text(planned), planned.mesh.shape)
    }
    for row, size in moved.items():
        kind, axes = row
        rest = found.pop(row) - size
        small = row_sums if axes == ("model",) else SMALL
        assert 0 <= rest <= (small if kind == "all-reduce" else 0), row
    assert all(kind == "all-reduce" and size < SMALL for (kind, _), size in found.items()), found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_papers_layouts(layout):
    mesh, switch = LAYOUTS[layout]
    planned = setup(mesh, switch)
    # Of each target over the vocabulary: maximum, two sums, the target's logit. Then the norms of
    # Adafactor, none of them larger than a row of a matrix.
    rows = BATCH // batch_shards(planned.mesh)
    compare(planned, expected(planned), row_sums=4 * rows * TARGETS * FLOAT + 2500)


def test_fully_sharded_parameters():
    """Gathered where they are used, their gradients summed, all within a replica; between replicas
    each device sums its part. Experts', which lie over `expert` anyway, over `data` alone.
    """
    planned = setup(MeshConfig(replica=2, data=2, expert=2, fully_sharded=True), {})
    sizes, rows = parameters(planned), BATCH // 8
    everywhere, split = ("replica", "data", "expert"), sizes["matrix"] + sizes["table"]
    slots = rows * E * sum(int(1.25 * length / E) for length in (INPUTS, TARGETS)) * D * FLOAT
    # For each pass, but once routers' kernels, D x E in both layers, experts' matrices, which are
    # kept, and the table: the logits are the last thing in the forward pass.
    dense = 2 * (sizes["matrix"] + sizes["norm"]) + sizes["table"] - 2 * D * E * FLOAT
    # Adafactor's means over d_model, of d_ff numbers for each expert's gradient and matrix.
    means = sizes["expert"] // D
    compare(
        planned,
        {
            ("all-gather", ("data", "expert")): dense,
            ("all-gather", ("data",)): sizes["expert"],
            ("all-to-all", ("expert",)): 4 * slots,
            ("all-reduce", ("data", "expert")): split,
            ("all-reduce", ("data",)): sizes["expert"] + means,
            ("all-reduce", ("replica",)): split // 4 + sizes["expert"] // 2,
            ("all-reduce", everywhere): 2 * sizes["table"]
            + sizes["norm"]
            + biases(planned.mesh.shape),
        },
    )
