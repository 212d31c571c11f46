"""Reading a compiled program: what runs, how often, what moves, and over which mesh axes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from switchx.planning.program import Collective, collectives
from switchx.planning.replica_groups import groups_of, mesh_axes

MESH = {"data": 2, "expert": 4}

# A loop whose trips are said, and one, as TPUs print it, that counts from 3 to 8 by 2: 3 trips.
LOOPS = """HloModule jit_f

%inner (p: bf16[8,128], q: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0} parameter(0)
  %q = bf16[8,128]{1,0} parameter(1)
  ROOT %not_run_alone = bf16[8,128]{1,0} add(%p, %q)
}

%body (arg: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %arg = (s32[], bf16[8,128]) parameter(0)
  %x = bf16[8,128]{1,0} get-tuple-element(%arg), index=1
  %product = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x), calls=%inner, kind=kOutput, backend_config={"window_config":{"estimated_cycles":"100"}}
  %rows = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %x), kind=kCustom, calls=%inner, backend_config={}
  %sum = bf16[8,128]{1,0} all-reduce(%product), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%inner
  ROOT %tuple = (s32[], bf16[8,128]) tuple(%n, %product)
}

%until (arg.2: (bf16[8,128], s32[])) -> pred[] {
  %arg.2 = (bf16[8,128], s32[]) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%arg.2), index=1
  %limit = s32[]{:T(128)} constant(8)
  ROOT %lt = pred[]{:T(512)} compare(%i.2, %limit), direction=LT
}

%counted (arg.3: (bf16[8,128], s32[])) -> (bf16[8,128], s32[]) {
  %arg.3 = (bf16[8,128], s32[]) parameter(0)
  %x.3 = bf16[8,128]{1,0} get-tuple-element(%arg.3), index=0
  %i.3 = s32[]{:T(128)} get-tuple-element(%arg.3), index=1
  %step = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i.3, %step)
  %nested = (s32[], bf16[8,128]) while(%init), condition=%any, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %tuple.3 = (bf16[8,128], s32[]) tuple(%x.3, %next)
}

ENTRY %main (x.0: bf16[8,128]) -> f32[8,128] {
  %x.0 = bf16[8,128]{1,0} parameter(0)
  %first = s32[]{:T(128)} constant(3)
  %copied = s32[]{:T(128)} copy(%first)
  %init.3 = (bf16[8,128], s32[]) tuple(%x.0, %copied)
  %loop = (bf16[8,128], s32[]) while(%init.3), condition=%until, body=%counted, metadata={op_name="jit(f)/while"}
  %unknown = (bf16[8,128], s32[]) while(%x.0), condition=%inner, body=%body
  ROOT %once = f32[8,128]{1,0} fusion(%x.0), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"7"}
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_goes_round():
    assert collectives(LOOPS, MESH) == [
        Collective("all-reduce", "bf16", ("data",), 16, 16 * 2048, 16 * 2048)
    ]


# Every form a collective comes in, each on an f32[8,4] of 128 bytes over the four of `expert`.
FORMS = """HloModule jit_f

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%wrapped (p.1: f32[8,4]) -> f32[2,4] {
  %p.1 = f32[8,4]{1,0} parameter(0)
  ROOT %rs = f32[2,4]{1,0} reduce-scatter(%p.1), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
}

%all-reduce-scatter.7 (p.2: f32[8,4]) -> f32[2,4] {
  %p.2 = f32[8,4]{1,0} parameter(0)
  %ar = f32[8,4]{1,0} all-reduce(%p.2), channel_id=2, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %ds = f32[2,4]{1,0} dynamic-slice(%ar, %i, %i), dynamic_slice_sizes={2,4}
}

%starting (p.3: f32[2,4]) -> (f32[2,4], f32[8,4], u32[]) {
  %p.3 = f32[2,4]{1,0} parameter(0)
  %ag.3 = f32[8,4]{1,0} all-gather(%p.3), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %start = (f32[2,4]{1,0}, f32[8,4]{1,0}, u32[]{:S(2)}) custom-call(%ag.3), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.4 (p.4: f32[2,4]) -> f32[2,4] {
  %p.4 = f32[2,4]{1,0} parameter(0)
  %ag.4 = f32[8,4]{1,0} all-gather(%p.4), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %other = f32[2,4]{1,0} add(%p.4, %p.4)
}

ENTRY %main (x: f32[8,4], y: f32[2,4], n: s32[4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %y = f32[2,4]{1,0} parameter(1)
  %n = s32[4]{0} parameter(2)
  %room = f32[64,4]{1,0} parameter(3)
  %async = ((f32[8,4]), f32[2,4], u32[]) async-start(%x), calls=%wrapped
  %done = f32[2,4]{1,0} async-done(%async)
  %rs.2 = f32[2,4]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.7
  %rs.3 = ((f32[8,4]), f32[2,4]) reduce-scatter-start(%x), channel_id=4, replica_groups=[2,4]<=[8]
  %ag.0 = (f32[2,4]{1,0}, f32[8,4]{1,0}, u32[]{:S(2)}) fusion(%y), kind=kCustom, calls=%starting
  %meanwhile = f32[2,4]{1,0} fusion(%y), kind=kOutput, calls=%async_collective_fusion.4
  %ag.1 = (f32[2,4], f32[8,4]) all-gather-start(%y), channel_id=5, replica_groups=[2,4]<=[8]
  %ar.1 = f32[8,4]{1,0} all-reduce-start(%x), channel_id=6, replica_groups=[2,4]<=[8], to_apply=%add
  %a2a.1 = ((f32[8,4]), f32[8,4], u32[]) all-to-all-start(%x), channel_id=7, replica_groups=[2,4]<=[8]
  %split = (f32[2,4], f32[2,4], f32[2,4], f32[2,4]) all-to-all(%y, %y, %y, /*index=3*/%y), channel_id=8, replica_groups=[2,4]<=[8]
  %cp = (f32[8,4], f32[8,4], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %ragged = f32[64,4] ragged-all-to-all(%x, %room, %n, %n, %n, %n), channel_id=9, replica_groups=[2,4]<=[8]
  %ragged.2 = f32[8,4] ragged-all-to-all(%room, %x, %n, %n, %n, %n), channel_id=10, replica_groups=[2,4]<=[8]
  %alone = f32[8,4] all-reduce(%x), channel_id=11, replica_groups=[8,1]<=[8], to_apply=%add
  ROOT %stays = f32[8,4] collective-permute(%x), source_target_pairs={{0,0},{1,1}}
}
"""  # noqa: E501


def test_every_form_of_a_collective():
    found = {each.kind: each for each in collectives(FORMS, MESH)}
    assert all(each.axes == ("expert",) and each.dtype == "f32" for each in found.values())
    # In four parts of 32 bytes of which each chip keeps one: 96 are sent, as sums twice.
    assert {kind: (each.count, each.bytes, each.sent) for kind, each in found.items()} == {
        "reduce-scatter": (3, 3 * 128, 3 * 96),
        "all-gather": (2, 2 * 128, 2 * 96),
        "all-reduce": (1, 128, 192),
        "all-to-all": (2, 2 * 128, 2 * 96),
        "collective-permute": (1, 128, 128),
        "ragged-all-to-all": (2, 2 * 128, 2 * 96),
    }


def test_dtypes_are_told_apart_and_the_axes_too():
    text = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %y = bf16[8]{0} parameter(1)
  %z = pred[8]{0} parameter(2)
  %a = (f32[8], bf16[8], pred[8]) all-reduce(%x, %y, %z), replica_groups={{0,4},{1,5},{2,6},{3,7}}
  %b = f32[8] all-reduce(%x), replica_groups={}
  %c = bf16[8] all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}
}
"""
    rows = {(each.dtype, each.axes): each.bytes for each in collectives(text, MESH)}
    assert rows == {
        ("f32", ("data",)): 32,
        ("bf16", ("data",)): 16,
        ("pred", ("data",)): 8,
        ("f32", ("data", "expert")): 32,
        ("bf16", ("expert",)): 16,  # as TPUs shorten it on the way
    }
    with pytest.raises(ValueError, match="out of bounds"):
        collectives(text, {"data": 2})


SIZES = {"a": 2, "b": 3, "c": 4}


@pytest.mark.parametrize("used", [("a",), ("b",), ("c",), ("a", "c"), ("b", "c"), ("a", "b", "c")])
def test_groups_over_axes_of_a_mesh(used):
    places = itertools.product(*map(range, SIZES.values()))
    groups: dict[tuple, list[int]] = {}
    for device, place in enumerate(places):
        rest = tuple(n for axis, n in zip(SIZES, place, strict=True) if axis not in used)
        groups.setdefault(rest, []).append(device)
    expected = list(groups.values())

    listed = "{" + ",".join("{" + ",".join(map(str, group)) + "}" for group in expected) + "}"
    axes = ",".join(f"'{axis}'={size}" for axis, size in SIZES.items())
    along = ",".join(f"'{axis}'" for axis in used)
    order = [i for i, axis in enumerate(SIZES) if axis not in used]
    order += [i for i, axis in enumerate(SIZES) if axis in used]
    n = math.prod(SIZES[axis] for axis in used)
    for written in (
        listed,
        f"[{24 // n},{n}]<=[2,3,4]T({','.join(map(str, order))})",
        f"mesh[{axes}] {{{along}}}",
        f"mesh[{axes}], device_ids=([24]) {{{along}}}".replace("'", ""),
    ):
        found = groups_of(f"%x), replica_groups={written}, use_global_device_ids=true", 24)
        assert sorted(map(sorted, found.tolist())) == expected, written
        assert mesh_axes(found, SIZES) == used


def test_groups_over_parts_of_the_axes_of_another_mesh():
    # Of eight in order the last of three halvings, and the first with the last.
    found = groups_of("replica_groups=mesh['x'=8] {'x':(4)2}", 8)
    assert found.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    found = groups_of("replica_groups=mesh['x'=8] {'x':(1)2,'x':(4)2}, more={1}", 8)
    assert found.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    found = groups_of("replica_groups=mesh['y'=2,'x'=4], device_ids=([4,2]T(1,0)) {'y'}", 8)
    assert found.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    found = groups_of("replica_groups=mesh['y'=2,'x'=2], device_ids=(3,1,2,0) {'x'}", 4)
    assert found.tolist() == [[3, 1], [2, 0]]


@pytest.mark.parametrize("used", [("data",), ("model", "expert"), ("data", "model"), "all"])
def test_the_axes_of_what_jax_compiles(used):
    sizes = {"data": 2, "expert": 2, "model": 2}
    used = tuple(sizes) if used == "all" else used
    mesh = Mesh(
        np.array(jax.devices()).reshape(2, 2, 2), tuple(sizes), axis_types=(AxisType.Auto,) * 3
    )

    def move(x):
        total = jax.lax.psum(x, used)
        return jax.lax.all_gather(total * x, used), jax.lax.all_to_all(x, used, 0, 0, tiled=True)

    moved = jax.shard_map(move, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    found = collectives(jax.jit(moved).lower(jnp.ones((8, 6))).compile().as_text(), sizes)
    n, size = 2 ** len(used), 8 * 6 * 4
    in_order = tuple(axis for axis in sizes if axis in used)
    assert sorted(found, key=lambda each: each.kind) == [
        Collective("all-gather", "f32", in_order, 1, size * n, size * (n - 1)),
        Collective("all-reduce", "f32", in_order, 1, size, 2 * size * (n - 1) // n),
        Collective("all-to-all", "f32", in_order, 1, size, size * (n - 1) // n),
    ]


def test_what_passes_between_slices_is_a_send_to_the_host():
    text = """HloModule jit_f

%body (arg: (s32[], f32[4,128])) -> (s32[], f32[4,128]) {
  %arg = (s32[], f32[4,128]) parameter(0)
  %x = f32[4,128]{1,0} get-tuple-element(%arg), index=1
  %send = (f32[4,128]{1,0}, u32[], token[]) send(%x, %after), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[4,128]{1,0}, u32[], token[]) recv(%after), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %tuple = (s32[], f32[4,128]) tuple(%n, %x)
}

ENTRY %main (x.0: f32[4,128]) -> f32[4,128] {
  %loop = (s32[], f32[4,128]) while(%init), condition=%any, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %to_host = (f32[4,128]{1,0}, u32[], token[]) send(%x.0, %after), channel_id=9, is_host_transfer=true
  ROOT %y = f32[4,128]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501
    size = 4 * 128 * 4
    expected = Collective("all-reduce", "f32", ("replica",), 5, 5 * size, 5 * size)
    assert collectives(text, {"replica": 2, "expert": 4}) == [expected]
