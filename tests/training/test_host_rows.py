"""Rows and shards of hosts: devices with numbers of processes, laid out on meshes by hand."""

import types

import numpy as np
import pytest
from jax.sharding import NamedSharding

from switchx.errors import UserError
from switchx.training import host_rows
from switchx.training.config import BatchShape
from switchx.training.host_rows import HostShards


@pytest.fixture
def mesh(monkeypatch):
    """Makes a mesh whose devices belong to these processes, in the order of the mesh."""

    def make(processes, batch_parts):
        devices = [types.SimpleNamespace(process_index=p) for p in processes]

        def devices_indices_map(shape):
            per_part = shape[0] // batch_parts
            copies = len(devices) // batch_parts  # of the `model` axis, which is innermost
            return {
                _Key(device): (slice((n // copies) * per_part, (n // copies + 1) * per_part),)
                for n, device in enumerate(devices)
            }

        sharding = types.SimpleNamespace(devices_indices_map=devices_indices_map)
        monkeypatch.setattr(host_rows, "batch_sharding", lambda mesh: sharding)
        return object()

    return make


class _Key:
    def __init__(self, device):
        self.process_index = device.process_index


def shards(mesh, count, processes):
    batch = BatchShape(16, 8, 8, count)
    return [HostShards.of(mesh, batch, process) for process in range(processes)]


def test_one_host_reads_everything(mesh):
    (only,) = shards(mesh([0] * 8, 8), 4, 1)
    assert only == HostShards((0, 1, 2, 3), (0, 1, 2, 3), 4)


def test_hosts_read_their_own(mesh):
    found = shards(mesh([0, 0, 1, 1, 2, 2, 3, 3], 8), 8, 4)
    assert [host.read for host in found] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert [host.kept for host in found] == [host.read for host in found]


def test_rows_need_not_be_in_one_piece(mesh):
    first, second = shards(mesh([0, 1, 0, 1], 4), 4, 2)
    assert (first.read, second.read) == ((0, 2), (1, 3))


def test_hosts_of_one_model_axis_read_the_same_rows_and_one_of_them_saves(mesh):
    found = shards(mesh([0, 1, 2, 3], 2), 2, 4)
    assert [host.read for host in found] == [(0,), (0,), (1,), (1,)]
    assert [host.kept for host in found] == [(0,), (), (1,), ()]


def test_a_part_of_a_shard_is_refused_with_the_number_to_use(mesh):
    says = r"DATA_SHARDS=2 cuts BATCH_SIZE=16 into parts of 8 rows.*hold 4 .*use a multiple of 4"
    with pytest.raises(UserError, match=says):
        shards(mesh([0, 1, 2, 3], 4), 2, 4)


def test_the_stand_in_is_as_jax_has_it():
    """One process, eight devices: the real thing gives the same kind of answer."""
    import jax

    from switchx.sharding import MeshConfig, batch_sharding, make_mesh

    real = batch_sharding(make_mesh(MeshConfig(2, 2, 2)))
    assert isinstance(real, NamedSharding)
    places = real.devices_indices_map((16,))
    assert {device.process_index for device in places} == {0}
    rows = np.concatenate([np.arange(16)[index] for index in places.values()])
    assert sorted(set(rows.tolist())) == list(range(16))
    assert len(jax.devices()) == len(places)
