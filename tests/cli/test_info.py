"""`switchx info`: figures of a configuration that nothing is built of."""

import json
import re

from switchx.planning.summary_text import human

XXL = "--gin_file=configs/models/switch_xxl_128.gin"
LARGE_BATCH = "--gin.BATCH_SIZE=2048"


def figures(command, *argv):
    outcome = command("info", "--json", *argv)
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_counts_and_flops(command):
    found = figures(command, XXL)
    assert sum(found["parameters"].values()) == 394_675_073_024
    one_expert = 3 * 4096 * 10240
    assert found["parameters"]["experts"] == 24 * 128 * one_expert
    assert found["parameters"]["router"] == 24 * 128 * 4096
    assert found["parameters"]["embedding"] == 2 * 32128 * 4096
    assert found["parameters"]["norms"] == (5 * 24 + 2) * 4096
    assert found["parameters"]["dense feed-forward"] == 24 * one_expert
    assert found["parameters_per_token"] == 394_675_073_024 - 24 * 127 * one_expert
    assert found["step_flops"] == 3 * 128 * found["forward_flops"]


def test_a_token_uses_both_of_its_experts(command):
    found = figures(command, "--gin_file=configs/models/moe_base.gin")
    assert found["parameters_per_token"] == 7_415_217_408 - 12 * 126 * 2 * 768 * 3072


def test_capacity(command):
    found = figures(command, XXL)["capacity"]
    assert found["encoder"] == {"group_size": 4096, "train": 40, "eval": 128}
    assert found["decoder"] == {"group_size": 912, "train": 8, "eval": 28}


def test_memory(command):
    dense = "--gin_file=configs/models/t5_base.gin"
    found = figures(command, dense, "--gin.OPTIMIZER=adamw")["memory"]
    assert found["parameters"] == found["gradients"] == 4 * 222_903_552
    assert 0 <= found["optimizer"] - 8 * 222_903_552 < 100  # two moments and counters
    adafactor = figures(command, dense)["memory"]["optimizer"]
    assert adafactor < 0.01 * 4 * 222_903_552


def test_what_is_trained_is_said_where_the_rest_is_frozen(command):
    flags = ("--gin_file=configs/models/tiny_switch.gin", "--gin.FREEZE=('experts',)")
    shown = command("info", *flags).out
    total, experts, trained = (
        int(re.search(rf"^ *{name} +([\d,]+)", shown, re.MULTILINE)[1].replace(",", ""))
        for name in ("parameters", "experts", "trained")
    )
    assert trained == total - experts


def test_memory_per_device(command):
    flags = (XXL, LARGE_BATCH, "--gin.MESH_EXPERT=64", "--gin.MESH_MODEL=2")
    found = figures(command, *flags)
    groups = found["parameters"]
    split = groups["attention"] - 2 * 32 * 64 + groups["dense feed-forward"] + groups["embedding"]
    split += groups["experts"] // 64
    whole = groups["router"] + groups["norms"]
    biases = 2 * 32 * 64 // 2
    assert found["memory_per_device"]["parameters"] == 4 * (split // 2 + biases + whole)
    assert found["problem"] is None


def test_open_mesh_sizes_leave_the_device_open(command):
    assert (
        figures(command, XXL, "--gin.MESH_DATA=1", "--gin.MESH_EXPERT=-1")["memory_per_device"]
        is None
    )


def test_what_would_be_refused_is_said(command):
    found = figures(command, XXL, LARGE_BATCH, "--gin.MESH_EXPERT=3")
    assert found["problem"] == "NUM_EXPERTS=128 must be a multiple of MESH_EXPERT=3."
    assert found["memory_per_device"] is None
    shown = command("info", XXL, LARGE_BATCH, "--gin.MESH_EXPERT=3").out
    assert "NUM_EXPERTS=128 must be a multiple of MESH_EXPERT=3." in shown


def test_the_table(command):
    shown = command("info", "--gin_file=configs/models/switch_base_128.gin").out
    for part in ("7,415,217,408", "7.4 B", "124.6 GFLOPs", "expert capacity", "29.7 GB"):
        assert part in shown
    assert "capacity" not in command("info", "--gin_file=configs/models/t5_base.gin").out


def test_the_slots_of_pools(command):
    """In the place of an expert's; dropless there are none."""
    ragged = ("--gin_file=configs/models/switch_base_128.gin", "--gin.DISPATCHER=ragged")
    shown = command("info", *ragged, "--gin.RAGGED_POOLS=16").out
    row = re.search(r"^capacity of 16 pools .*\n  encoder +(\S+) +(\S+) +(\S+)\n", shown, re.M)
    assert row.groups() == ("8,192", "640", "1,024")
    assert "capacity" not in command("info", *ragged).out


def test_human():
    assert [human(n) for n in (0, 999, 1000, 26_309_291_008, 2e18)] == [
        "0 ",
        "999 ",
        "1.0 k",
        "26.3 G",
        "2.0 E",
    ]
