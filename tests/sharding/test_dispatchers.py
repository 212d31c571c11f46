"""Every dispatcher on meshes of eight devices: the same numbers, and no needless collective."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from switchx.errors import UserError
from switchx.model import NO_NOISE
from switchx.model.dispatch import exchange, for_answers, packed, ragged
from switchx.model.dispatch.ragged import turns_of
from switchx.sharding import MeshConfig, batch_sharding, make_mesh, spec
from tests.helpers import grouping, noise, random_mask, switch_layer, tiny_config, with_switch
from tests.model.policies import DROPLESS, POLICIES, POOLED

# 16 groups of 16 tokens, two for each device; 8 experts, widths that no other dimension has.
B, L, D, F, E, ROOM = 16, 16, 24, 40, 8, 3
MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]  # each axis alone, and all together
# The policy that draws most; the others on one mesh that has all three axes.
NAMES = {"einsum": "at random", "index": "at random", "ragged": "dropless at random"}
ON_EACH = [(NAMES[dispatcher], dispatcher, sizes) for dispatcher in NAMES for sizes in MESHES]
OTHERS = ["top 2, sampled", "two more rounds, by gate", "experts choose"]
# Of two experts on each device one is wide; one by one the shares are uneven.
WIDTHS = {
    "two widths": dict(expert_widths=((4, 16), (4, 40)), **POLICIES["at random"]),
    "dropless two widths": dict(expert_widths=((4, 16), (4, 40)), **DROPLESS["dropless at random"]),
}
# Slots of four pools, of two experts each, of which with two widths one is wide.
POOLS = {
    "pools": {**POOLED["pools, at random"], "ragged_pools": 4},
    "pools of two widths": {**WIDTHS["dropless two widths"], "ragged_pools": 4},
}
IN_POOLS = [("pools", "ragged", (1, 4, 2)), ("pools of two widths", "ragged", (2, 2, 2))]
OF_WIDTHS = [
    ("two widths", "einsum", (2, 2, 2)),
    ("two widths", "index", (1, 4, 2)),
    ("dropless two widths", "ragged", (2, 2, 2)),
]
# Of which few slots would have to be filled, if it were not asked for.
PACKED = {"packed, at random": POLICIES["at random"]}
OF_PACKED = [("packed, at random", "index", (2, 2, 2))]
CASES = ON_EACH + OF_WIDTHS + OF_PACKED + IN_POOLS + [(name, "index", (2, 2, 2)) for name in OTHERS]


def inputs():
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    mask_BL = random_mask(rng, B, L)
    mask_BL[-1] = False  # a group of nothing but padding
    return jnp.asarray(x_BLD), jnp.asarray(mask_BL), noise(B)


@functools.cache
def layer(name, dispatcher):
    changes = {**POLICIES, **DROPLESS, **WIDTHS, **POOLS, **PACKED}[name]
    config = with_switch(
        tiny_config(d_model=D, d_ff=F, dropout_rate=0.1),
        **{"num_experts": E, **changes, "dispatcher": dispatcher},
    )
    with jax.ensure_compile_time_eval():  # arrays also where a trace asks first, as this is kept
        return config, *nnx.split(switch_layer(config, 0))


def forward(name, dispatcher):
    """(parameters, x, mask, noise) to the output and the statistics, as in training."""
    config, graphdef, _ = layer(name, dispatcher)
    groups = grouping(config, 16, None if config.switch.dropless else ROOM)

    def run(state, x_BLD, mask_BL, keys):
        y_BLD, routed = nnx.merge(graphdef, state)(x_BLD, mask_BL, groups, keys)
        return y_BLD, routed.stats

    return run


def backward(name, dispatcher):
    """The same to the output, the statistics, and a loss's gradients by parameters and x."""

    def loss(*arguments):
        y_BLD, stats = forward(name, dispatcher)(*arguments)
        total = jnp.sum(jnp.sin(y_BLD)) + stats.balance_loss + stats.z_loss
        return total, (y_BLD, stats)

    return jax.grad(loss, argnums=(0, 1), has_aux=True)


@functools.cache
def on_mesh(make, name, dispatcher, sizes):
    """The compiled function on a mesh of these sizes, and how its arguments lie."""
    *_, state = layer(name, dispatcher)
    mesh = make_mesh(MeshConfig(*sizes))
    parameters = jax.tree.map(
        lambda param: NamedSharding(mesh, spec(*param.axes)),
        state,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    shardings = (parameters, *(batch_sharding(mesh),) * 3)
    arguments = jax.device_put((state, *inputs()), shardings)
    with jax.set_mesh(mesh), pytest.MonkeyPatch.context() as patch:
        if name in PACKED:
            patch.setitem(packed._MOST_FILLED, "cpu", 100)
        sharded = jax.jit(make(name, dispatcher), in_shardings=shardings)
        return sharded.lower(*arguments).compile(), shardings


def on_eight(make, name, dispatcher, sizes, state):
    compiled, shardings = on_mesh(make, name, dispatcher, sizes)
    return compiled(*jax.device_put((state, *inputs()), shardings))


@functools.cache
def on_one_device(name, dispatcher):
    return jax.jit(backward(name, dispatcher))


def same(found, expected):
    """Equal to 1e-5 of each array's largest number: sums come in another order."""
    found, expected = map(jax.tree.leaves, jax.device_get((found, expected)))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(("name", "dispatcher", "sizes"), CASES)
def test_the_same_as_on_one_device(name, dispatcher, sizes):
    config, _, state = layer(name, dispatcher)
    # The index dispatcher's reference is einsum's, so that the two are held to each other.
    one = on_one_device(name, "ragged" if dispatcher == "ragged" else "einsum")
    expected = one(state, *inputs())
    dropped = expected[1][1].dropped_fraction
    assert dropped == 0.0 if config.switch.dropless else dropped > 0.0
    same(on_eight(backward, name, dispatcher, sizes, state), expected)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
def test_all_rows_to_the_first_experts(sizes):
    """Dropless has room for every choice on one device, and nothing for most others to do."""
    name = NAMES["ragged"]
    state = jax.tree.map(lambda x: x, layer(name, "ragged")[2])
    state["router"]["kernel_DE"] = jax.tree.map(jnp.zeros_like, state["router"]["kernel_DE"])
    expected = on_one_device(name, "ragged")(state, *inputs())
    # Two of equal experts each, in all groups but that of padding.
    np.testing.assert_allclose(expected[1][1].load_E[:2], (B - 1) / B / 2)
    same(on_eight(backward, name, "ragged", sizes, state), expected)


COLLECTIVE = re.compile(
    r"= (.*) (all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute)(?:-start)?\("
)


def collectives(compiled):
    """(kind, dtype, sizes of the arrays it yields) of every collective in the compiled program."""
    for types, kind in COLLECTIVE.findall(compiled.as_text()):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", types)
        shapes = [[int(n) for n in shape.split(",") if n] for _, shape in arrays]
        yield kind, arrays[0][0], shapes


@pytest.mark.parametrize(
    ("make", "exchanges", "name", "dispatcher", "sizes"),
    [(backward, 4, *case) for case in CASES]
    + [(forward, 2, NAMES[dispatcher], dispatcher, (2, 2, 2)) for dispatcher in NAMES],
)
def test_tokens_move_by_all_to_alls_alone(make, exchanges, name, dispatcher, sizes):
    data, expert, model = sizes
    found = list(collectives(on_mesh(make, name, dispatcher, sizes)[0]))
    moved = [shapes for kind, dtype, shapes in found if (kind, dtype) == ("all-to-all", "f32")]
    # Those of each width go by themselves, unless rows are sorted by device.
    widths = 2 if name == "two widths" else 1
    assert len(moved) == (exchanges * widths if expert > 1 else 0)
    # Each carries one device's slots of all experts, [G, E, C, D] in all, or of all pools; dropless
    # on CPUs, room for all its rows on each device.
    switch = layer(name, dispatcher)[0].switch
    size = B * (switch.ragged_pools or E // widths) * ROOM * D // (data * expert)
    if switch.dropless:
        size = expert * (2 * B * L // (data * expert)) * D
    assert all(sum(map(math.prod, shapes)) == size for shapes in moved)
    # Otherwise rows' keys of the noise travel, and how many rows each expert has: no tokens,
    # probabilities or weights are gathered or permuted.
    for kind, dtype, shapes in found:
        if kind in ("all-gather", "collective-permute"):
            assert dtype in ("u32", "s32"), (kind, dtype, shapes)
            assert all(math.prod(shape) <= max(B, E * expert) for shape in shapes), (kind, shapes)
    assert not any(kind == "reduce-scatter" for kind, *_ in found)
    # Sums: of statistics and gradients of weights over their copies, and, where d_ff is shared
    # out, of what the experts put out (and the gradient of what they take in).
    sums = [shape for kind, _, shapes in found if kind == "all-reduce" for shape in shapes]
    summed = B * L * D // (data * expert) if dispatcher == "ragged" else size
    tokens = [shape for shape in sums if math.prod(shape) == summed]
    if dispatcher != "ragged" or model > 1:  # whose gradient is summed over one device too
        assert len(tokens) == (widths * exchanges // 2 if model > 1 else 0)


@pytest.mark.parametrize("sizes", [(2, 4, 1), (1, 8, 1), (2, 2, 2)])
def test_each_device_holds_its_experts_only(sizes):
    *_, state = layer(NAMES["index"], "index")
    wi = state["experts"]["wi_EDF"]
    held = NamedSharding(make_mesh(MeshConfig(*sizes)), spec(*wi.axes)).shard_shape(wi[...].shape)
    assert held == (E // sizes[1], D, F // sizes[2])


def emulated_ragged_all_to_all(
    operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name
):
    """By JAX's description of it, everything gathered: the one operation that CPUs do not have."""
    me = jax.lax.axis_index(axis_name)
    sent, start_nn, size_nn, at_nn = (
        jax.lax.all_gather(x, axis_name)
        for x in (operand, input_offsets, send_sizes, output_offsets)
    )
    number = jnp.arange(operand.shape[0])
    for sender in range(sent.shape[0]):
        rows = sent[sender][jnp.minimum(start_nn[sender, me] + number, operand.shape[0] - 1)]
        at = jnp.where(number < size_nn[sender, me], at_nn[sender, me] + number, len(output))
        output = output.at[at].set(rows, mode="drop")
    return jnp.where((recv_sizes == size_nn[:, me]).all(), output, 0)


def test_the_exchange_of_accelerators(monkeypatch):
    """The form with ragged_all_to_all, which only accelerators have: its offsets and sizes."""
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", emulated_ragged_all_to_all)
    monkeypatch.setattr(exchange, "_send_padded", exchange._send_ragged)
    monkeypatch.setattr(exchange, "_back_padded", exchange._back_ragged)
    name = NAMES["ragged"]
    *_, state = layer(name, "ragged")
    expected = on_one_device(name, "ragged")(state, *inputs())
    jax.clear_caches()  # of what was traced with the functions as they are
    compiled, shardings = on_mesh.__wrapped__(backward, name, "ragged", (1, 4, 2))
    assert not any(kind == "all-to-all" for kind, *_ in collectives(compiled))
    jax.clear_caches()
    found = compiled(*jax.device_put((state, *inputs()), shardings))
    same(found, expected)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 4, 2)])
def test_answering_in_turns_is_the_same_in_less_room(monkeypatch, sizes):
    """On eight devices the room for received rows would be eight times a device's own: too much.

    With four it is as much as may be, and one turn does.
    """
    monkeypatch.setattr(ragged, "_FEW_ROWS", 1)
    name = NAMES["ragged"]
    config, graphdef, state = layer(name, "ragged")
    groups = dataclasses.replace(grouping(config, 16, None), dispatcher=for_answers())
    mesh = make_mesh(MeshConfig(*sizes))
    placed = jax.device_put(inputs()[:2], batch_sharding(mesh))

    def run(state, x_BLD, mask_BL):
        return nnx.merge(graphdef, state)(x_BLD, mask_BL, groups, NO_NOISE)[0]

    with jax.set_mesh(mesh):
        compiled = jax.jit(run).lower(state, *placed).compile()
        found = compiled(state, *placed)
    same(found, jax.jit(run)(state, *inputs()[:2]))
    moved = [shapes for kind, _, shapes in collectives(compiled) if kind == "all-to-all"]
    own = 2 * B * L // math.prod(sizes[:2]) * D
    assert {sum(map(math.prod, shapes)) for shapes in moved} == {4 * own}


@pytest.mark.parametrize(
    ("tokens", "choices", "n", "turns"),
    [
        (512 * 4, 1, 1, 1),  # a device alone keeps its rows
        (512 * 4, 1, 4, 1),  # room for four times its own
        (512 * 4, 2, 256, 64),
        (1, 2, 256, 1),  # decoding: single tokens of few rows
        (64, 1, 16, 1),  # 1,024 rows are few
        (510, 1, 256, 85),  # of the divisors of 510 the first from 64 on
    ],
)
def test_turns_by_the_size_of_the_mesh(tokens, choices, n, turns):
    assert turns_of(tokens, tokens * choices, n) == turns


@pytest.mark.parametrize(
    ("sizes", "rows", "capacity", "message"),
    [
        ((2, 4, 1), 6, None, r"6 rows .* MESH_DATA x MESH_EXPERT x MESH_REPLICA = 8"),
        ((1, 8, 1), 8, None, r"NUM_EXPERTS=4 must be a multiple of MESH_EXPERT=8"),
        (
            (2, 4, 1),
            6,
            ROOM,
            r"6 rows or groups of tokens .* MESH_DATA x MESH_EXPERT x MESH_REPLICA = 8",
        ),
    ],
)
def test_what_does_not_divide_over_the_mesh_is_refused(sizes, rows, capacity, message):
    config = tiny_config()
    one, groups = switch_layer(config, 0), grouping(config, 16, capacity)
    x_BLD, mask_BL = jnp.zeros((rows, 16, 16)), jnp.ones((rows, 16), bool)
    with jax.set_mesh(make_mesh(MeshConfig(*sizes))), pytest.raises(UserError, match=message):
        jax.eval_shape(lambda x_BLD: one(x_BLD, mask_BL, groups, NO_NOISE)[0], x_BLD)
