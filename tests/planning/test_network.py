"""What the network needs: closed forms, and the best of all routes by linear programming."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from switchx.planning.devices import compile_only_devices
from switchx.planning.network import Network
from switchx.planning.program import Collective, least_sent
from switchx.planning.topology import parse
from switchx.sharding import MeshConfig, make_mesh

LINK, BETWEEN = 10.0, 1.0


def network(grid, wraps, axes=None, slices=1):
    """Chips of slices in order, over one axis or those of `axes`."""
    places = np.array(list(itertools.product(*map(range, grid))))
    chips = len(places)
    return Network(
        axes or {"expert": chips * slices},
        np.repeat(np.arange(slices), chips),
        np.tile(places, (slices, 1)),
        wraps,
        LINK,
        BETWEEN,
    )


def moved(kind, axes, size):
    return Collective(kind, "bf16", axes, 1, size, 0)


def best_routes(grid, wraps, groups):
    """The least time in which each chip gets one byte to each other of its group, of all routes.

    Of each chip's bytes (a commodity) so much flows through each link one way; what flows in and
    does not stay flows out; the fullest link takes the time. A line's ends have no link.
    """
    places = list(itertools.product(*map(range, grid)))
    links = []
    for place, (dim, k) in itertools.product(places, enumerate(grid)):
        for step in (1, -1):
            to = list(place)
            to[dim] = (place[dim] + step) % k
            if wraps[dim] or to[dim] == place[dim] + step:
                links.append((places.index(place), places.index(tuple(to))))
    n, m = len(places), len(links)
    net = np.zeros((n, m))  # into a chip, less out of it
    for at, (a, b) in enumerate(links):
        net[a, at] -= 1
        net[b, at] += 1
    stays = np.zeros((n, n))  # of a source's bytes
    for group in groups:
        for a, b in itertools.permutations(group, 2):
            stays[a, b] += 1
            stays[a, a] -= 1
    equal = np.hstack([np.kron(np.eye(n), net), np.zeros((n * n, 1))])
    most = np.hstack([np.tile(np.eye(m), n), -np.ones((m, 1))])
    cost = np.append(np.zeros(n * m), 1)
    found = linprog(cost, A_ub=most, b_ub=np.zeros(m), A_eq=equal, b_eq=stays.ravel())
    return found.fun / LINK


@pytest.mark.parametrize(
    ("grid", "wraps"),
    [
        ((4,), (True,)),
        ((5,), (True,)),
        ((4,), (False,)),
        ((5,), (False,)),
        ((4, 4), (True, True)),
        ((2, 4), (False, True)),
        ((3, 4), (False, False)),
        ((2, 2, 3), (False, False, False)),
    ],
)
def test_no_routes_of_an_exchange_are_faster_and_some_are_as_fast(grid, wraps):
    n = int(np.prod(grid))
    found = network(grid, wraps).seconds([moved("all-to-all", ("expert",), n)])
    assert found["ici"] == pytest.approx(best_routes(grid, wraps, [range(n)]))


@pytest.mark.parametrize("axis", ["data", "expert"])
def test_groups_along_one_dimension_use_its_links_alone(axis):
    """Rows and columns of a torus of 3 x 4 that exchange, all at once: detours win nothing."""
    net = network((3, 4), (True, True), {"data": 3, "expert": 4})
    chips = np.arange(12).reshape(3, 4)
    groups = chips if axis == "expert" else chips.T
    (found, _) = net.seconds([moved("all-to-all", (axis,), groups.shape[1])]).values()
    assert found == pytest.approx(best_routes((3, 4), (True, True), groups))


def test_part_of_a_ring_is_bounded_by_all_its_links():
    """Two halves of a ring of 8: messages take 10 hops a chip's of 4, over 16 links."""
    net = network((8,), (True,), {"data": 2, "expert": 4})
    (found, _) = net.seconds([moved("all-to-all", ("expert",), 4)]).values()
    hops = sum(abs(a - b) for a in range(4) for b in range(4))
    assert found == pytest.approx(2 * hops / 16 / LINK)
    assert found <= best_routes((8,), (True,), np.arange(8).reshape(2, 4))


@pytest.mark.parametrize("k", [4, 16])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_closed_forms_of_a_torus(k, dims):
    """k / 8 of the array through each link to exchange it, an n-th less than all to gather it."""
    net, n, size = network((k,) * dims, (True,) * dims), k**dims, 8 * 4096
    assert net.seconds([moved("all-to-all", ("expert",), size)])["ici"] == size * k / 8 / LINK
    for kind, times in (("all-gather", 1), ("reduce-scatter", 1), ("all-reduce", 2)):
        found = net.seconds([moved(kind, ("expert",), size)])["ici"]
        assert found == pytest.approx(times * size * (n - 1) / n / (2 * dims * LINK))


def test_a_line_is_gathered_through_the_one_link_of_its_ends():
    net = network((4, 4), (False, False), {"data": 4, "expert": 4})
    assert net.seconds([moved("all-gather", ("data",), 80)])["ici"] == 60 / LINK
    assert net.seconds([moved("all-gather", ("data", "expert"), 80)])["ici"] == 75 / (2 * LINK)


def test_dimensions_work_at_the_same_time():
    net = network((4, 4), (True, True), {"data": 4, "expert": 4})
    along, across = moved("all-gather", ("data",), 80), moved("all-gather", ("expert",), 40)
    assert net.seconds([along, across])["ici"] == 60 / (2 * LINK)
    assert net.seconds([along, along])["ici"] == 120 / (2 * LINK)
    both = moved("all-gather", ("data", "expert"), 160)  # takes what the others leave
    assert net.seconds([along, across, both])["ici"] == (60 + 30 + 150) / (4 * LINK)


AXES = {"replica": 2, "data": 4, "expert": 1, "model": 1}


@pytest.mark.parametrize(
    ("kind", "axes", "ici", "dcn"),
    [
        # 80 bytes. Of two slices of four chips: 20 bytes each, once there and once back.
        ("all-reduce", ("replica", "data"), 2 * 60, 2 * 0.5 * 20),
        ("all-gather", ("replica", "data"), 60, 0.5 * 20),
        ("reduce-scatter", ("replica", "data"), 60, 0.5 * 20),
        # Eight parts of 10 bytes: one stays, three go to neighbours, four away.
        ("all-to-all", ("replica", "data"), 30, 40),
        ("ragged-all-to-all", ("replica", "data"), 30, 40),
        ("collective-permute", ("replica", "data"), 0, 80),
        ("all-reduce", ("replica",), 0, 80),
        ("all-to-all", ("replica",), 0, 40),
        ("all-gather", ("data",), 60, 0),
    ],
)
def test_what_leaves_the_node_goes_over_the_slower_network(kind, axes, ici, dcn):
    """Nodes of four chips behind a switch."""
    net = Network(AXES, np.repeat([0, 1], 4), np.empty((8, 0), int), (), LINK, BETWEEN)
    assert net.seconds([moved(kind, axes, 80)]) == {"ici": ici / LINK, "dcn": dcn / BETWEEN}
    assert net.seconds([]) == {"ici": 0, "dcn": 0}


def test_replicas_within_a_slice_are_near():
    net = network((2, 4), (False, True), {"replica": 2, "data": 4})
    assert net.seconds([moved("all-reduce", ("replica",), 80)]) == {"ici": 80 / LINK, "dcn": 0}


def test_where_the_devices_of_a_plan_lie():
    pytest.importorskip("libtpu")
    topology = parse("2xv5e:16x16")
    mesh = make_mesh(MeshConfig(2, 128, 1, 2), compile_only_devices(topology))
    net = Network.of(mesh, topology)
    assert (net.wraps, net.link, net.between) == ((True, True), 50e9, 3.125e9)
    # The experts have one dimension of the torus and half of the other.
    held = {tuple(net.places[chip]) for chip in net._groups(("expert",))[0]}
    assert held == set(itertools.product(range(16), range(8)))
    size = 10**9
    found = net.seconds([moved("all-to-all", ("expert",), size)])
    assert found == {"ici": size * 16 / 8 / 50e9, "dcn": 0}
    sums = net.seconds([moved("all-reduce", ("replica",), size)])
    assert sums == {"ici": 0, "dcn": least_sent("all-reduce", size, 2) / 3.125e9}
