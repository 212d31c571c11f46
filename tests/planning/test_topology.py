"""Names of topologies: what they stand for, and what is said of wrong ones."""

import math

import pytest

from switchx.errors import UserError
from switchx.planning.chips import CHIPS, GIB
from switchx.planning.topology import family, parse
from switchx.training.peak import peak_flops


@pytest.mark.parametrize(
    ("name", "canonical", "chips", "hosts"),
    [
        ("v5p-1024", "v5p:8x8x8", 512, 128),  # names of v4 and v5p count TensorCores, two a chip
        ("v4-8", "v4:2x2x1", 4, 1),
        ("v5e-256", "v5e:16x16", 256, 64),
        ("v5litepod-256", "v5e:16x16", 256, 64),
        ("v6e-1", "v6e:1x1", 1, 1),
        ("v5p:4x4x12", "v5p:4x4x12", 192, 48),
        ("2xv5e-256", "2xv5e:16x16", 512, 128),
        ("2xv5p:4x4x4", "2xv5p:4x4x4", 128, 32),
        ("h100x8", "h100x8", 8, 1),
        ("8xh100x8", "8xh100x8", 64, 8),
        ("cpu:8", "cpu:8", 8, 1),
    ],
)
def test_names_users_know(name, canonical, chips, hosts):
    topology = parse(name)
    assert (topology.name, topology.num_chips, topology.hosts) == (canonical, chips, hosts)
    assert parse(canonical) == topology


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5p:3x5x7", "v5p:4x4x4 (64 chips) and v5p:4x4x8 (128 chips)"),
        ("v5p:12x4x4", "v5p:4x4x12 (192 chips)"),
        ("v5p-1000", "v5p-768 (4x8x12) and v5p-1024 (8x8x8)"),
        ("v5p-99999", "v5p-12288 (16x16x24)"),
        ("v5e:3x3", "v5e:2x4 (8 chips) and v5e:4x4 (16 chips)"),
        ("v5p", "must say how many chips: v5p-256 or v5p:4x4x8"),
        ("h100x3", "1, 2, 4 or 8 GPUs"),
        ("h100", "h100x8"),
        ("2xv4-8", "how fast v4's slices are joined is not published"),
        ("8xa100x8", "how fast a100's nodes are joined is not published"),
        ("tpu-8", "write for example v5p-1024"),
        ("0xv5e-8", "whole number from 1"),
        ("cpu", "cpu:N"),
        ("2xcpu:4", "cpu:N"),
        ("", "write for example"),
    ],
)
def test_a_wrong_name_is_told_the_nearest_right_ones(name, said):
    with pytest.raises(UserError) as error:
        parse(name)
    assert f"--topology={name}" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_family_grows_and_every_slice_has_a_name():
    for name, chip in CHIPS.items():
        slices = family(name)
        sizes = [topology.num_chips for topology in slices]
        assert sizes == sorted(set(sizes))
        assert all(parse(topology.name) == topology for topology in slices)
        if chip.is_tpu:
            counted = [f"{name}-{topology.num_chips * chip.cores}" for topology in slices]
            assert [parse(n).num_chips for n in counted] == sizes
    v5p = [topology.num_chips for topology in family("v5p")]
    assert v5p[:8] == [4, 8, 16, 32, 64, 128, 192, 256]
    assert v5p[-1] == 6144
    with pytest.raises(UserError, match="must be a family"):
        family("v5p-8")


def test_chips_have_rates_of_the_right_order():
    for chip in CHIPS.values():
        assert chip.peak_flops("bfloat16") == peak_flops(chip.device_kind, "bfloat16")
        assert chip.peak_flops("bfloat16") >= chip.peak_flops("float32")
        assert chip.hbm_rate > chip.fabric_rate > (chip.network_rate or 0)
        assert 15 * GIB < chip.hbm_bytes < 142e9


def test_a_tpus_clock_follows_from_its_matrix_units():
    units = {"v4": (8, 128), "v5e": (4, 128), "v5p": (8, 128), "v6e": (4, 256)}
    for name, (number, side) in units.items():
        chip = CHIPS[name]
        assert chip.peak_flops("bfloat16") == pytest.approx(
            2 * number * math.prod((side, side)) * chip.clock, rel=0.02
        )
