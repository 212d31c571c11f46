"""Devices that only compile: as many, and of the kind, that their topology's name says."""

import pytest

from switchx.planning import devices
from switchx.planning.chips import CHIPS
from switchx.planning.gpus import target_config
from switchx.planning.topology import family, parse


@pytest.mark.parametrize(
    "name", ["v4-8", "v5e:1x1", "v5e-8", "v5p-1024", "v6e:2x2", "2xv5e-4", "3xv5p:2x2x2"]
)
def test_tpus(name):
    pytest.importorskip("libtpu")
    topology = parse(name)
    made = devices.compile_only_devices(topology)
    assert len(made) == topology.num_chips
    assert len({device.process_index for device in made}) == topology.hosts
    assert len({getattr(device, "slice_index", 0) for device in made}) == topology.slices
    # v5p chips call themselves "TPU v5": what counts is that the table of peaks knows both.
    assert made[0].device_kind in (topology.chip.device_kind, "TPU v5")


def test_every_slice_on_offer_is_known_to_the_compiler():
    pytest.importorskip("libtpu")
    for name in ("v4", "v5e", "v5p", "v6e"):
        for topology in (family(name)[0], family(name)[-1]):
            assert len(devices.compile_only_devices(topology)) == topology.num_chips


def test_what_compiles_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "EXTRAS='dev plan'" in devices.missing_compiler(parse("v5e-4"))
    assert "EXTRAS='dev cuda'" in devices.missing_compiler(parse("h100x8"))
    assert devices.missing_compiler(parse("cpu:8")) is None


def test_gpus_are_described_in_full():
    for chip in CHIPS.values():
        if not chip.is_tpu:
            text = target_config(chip)
            assert f"device_memory_size: {chip.hbm_bytes} " in text
            assert f'device_description_str: "{chip.device_kind}"' in text
            assert text.count("{") == text.count("}")
