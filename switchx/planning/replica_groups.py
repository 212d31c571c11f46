"""Which devices a collective runs among, in each of the forms that HLO writes, as mesh axes."""

import re
from collections.abc import Mapping

import numpy as np

# {{0,1},{2,3}}; {}: all in one. Pairs of a permutation: {{from,to},...}.
_LISTS = re.compile(r"\b(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}")
# [groups,devices]<=[2,4]T(1,0): consecutive numbers in that shape, transposed, reshaped.
_IOTA = re.compile(r"\breplica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
# mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a','b':(1)2}: along whole axes of a mesh or, of b,
# along the part that follows (1) and has 2. The devices may also be listed; without any they are
# numbered in order.
_MESH = re.compile(r"\breplica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")
_AXIS = re.compile(r"([^,=]+)=(\d+)")
_AXIS_USED = re.compile(r"([^,:]+)(?::\((\d+)\)(\d+))?(?:,|$)")


def groups_of(attributes: str, devices: int) -> np.ndarray:
    """int [groups, devices of each] from a collective's attributes; of a permutation the pairs."""
    if found := _IOTA.search(attributes):
        shape, dims, order = map(_numbers, found.groups())
        return _iota(dims, order).reshape(shape)
    if found := _MESH.search(attributes):
        return _along_mesh(*found.groups())
    found = _LISTS.search(attributes)
    if not found or not found.group(1):
        return np.arange(devices)[None]
    return np.array([_numbers(each) for each in re.findall(r"\{([\d,]*)\}", found.group(1))])


def mesh_axes(groups: np.ndarray, axes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which a group's devices differ, in the mesh's order."""
    coordinates = np.unravel_index(groups, tuple(axes.values()))
    return tuple(
        axis for axis, where in zip(axes, coordinates, strict=True) if (where != where[:, :1]).any()
    )


def _along_mesh(mesh: str, device_ids: str | None, used: str) -> np.ndarray:
    sizes = {name: int(size) for name, size in _AXIS.findall(mesh)}
    places = np.arange(np.prod(list(sizes.values())))
    where = dict(zip(sizes, np.unravel_index(places, tuple(sizes.values())), strict=True))
    n = 1
    # With their places along the axes in use set to zero, the devices of a group are in one place.
    for name, before, size in _AXIS_USED.findall(used):
        own = int(size or sizes[name])
        step = sizes[name] // (own * int(before or 1))
        where[name] = where[name] - where[name] // step % own * step
        n *= own
    place = np.ravel_multi_index(tuple(where.values()), tuple(sizes.values()))
    return _devices(device_ids, len(places))[np.argsort(place, kind="stable")].reshape(-1, n)


def _devices(device_ids: str | None, number: int) -> np.ndarray:
    """The devices of a mesh in its order."""
    if device_ids is None:
        return np.arange(number)
    if found := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", device_ids):
        return _iota(*map(_numbers, found.groups()))
    return np.array(_numbers(device_ids))


def _iota(dims: list[int], order: list[int]) -> np.ndarray:
    """Consecutive numbers in the shape `dims`, transposed by `order`, flat."""
    x = np.arange(np.prod(dims)).reshape(dims)
    return (x.transpose(order) if order else x).reshape(-1)


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in text.split(",")] if text else []
