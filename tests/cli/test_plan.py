"""`switchx plan` as a user types it."""

import json

import pytest

RUN = [
    "--gin_file=configs/models/tiny_switch.gin",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.ENCODER_GROUP_SIZE=32",
    "--gin.DECODER_GROUP_SIZE=16",
    "--gin.BATCH_SIZE=16",
    "--gin.ModelConfig.d_model=128",
    "--gin.ModelConfig.d_ff=128",
    "--gin.ModelConfig.vocab_size=256",
    "--gin.ModelConfig.num_layers=2",
]


def test_a_plan_for_cpu_devices(command, tmp_path):
    plan = ("plan", "--topology=cpu:8", "--gin.MESH_EXPERT=4", "--gin.MESH_DATA=2", *RUN)
    outcome = command(*plan)
    assert outcome.status == 0, outcome.err
    for part in ("8 CPU devices", "MESH_EXPERT=4", "gradients", "all-to-all of f32 over expert"):
        assert part in outcome.out
    folder = tmp_path / "plans/tiny_switch-cpu-8"
    assert (folder / "plan.txt").read_text() == outcome.out
    assert (folder / "plan.png").stat().st_size > 10_000
    values = json.loads((folder / "plan.json").read_text())
    assert values["mesh"] == {"replica": 1, "data": 2, "expert": 4, "model": 1}
    memory = values["memory"]
    parts = ("parameters", "optimizer", "gradients", "activations", "batch", "program")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert (values["fits"], values["bound"]) == (None, None)
    assert values["compilation"]["host_bytes"] > 10**8

    # The same plan again may write there; another one gets a folder of its own, or an error.
    assert command(*plan, "--json").status == 0
    other = command(*plan, "--gin.REMAT='full'")
    assert other.status == 0
    assert (tmp_path / "plans/tiny_switch-cpu-8-2/plan.txt").exists()
    refused = command(*plan, "--gin.REMAT='dots'", f"--output={folder}")
    assert refused.status == 2
    assert "holds another plan" in refused.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--topology=v5p:3x5x7"], "is not a slice of v5p; the nearest are v5p:4x4x4"),
        (["--topology=v5e:2x2", "--gin.MESH_EXPERT=3"], "does not fit 4 devices"),
        (["--topology=2xv5e:2x2", "--gin.MESH_EXPERT=8"], "MESH_REPLICA must be 2"),
        (["--topology=cpu:8", "--cpu_devices=8"], "use --topology=cpu:N"),
        (["--topology=v5p-8", "--fit"], "must be a family"),
        ([], "--topology"),
    ],
)
def test_mistakes_are_one_line(command, tmp_path, flags, said):
    outcome = command("plan", *flags, *RUN)
    assert outcome.status == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("switchx:")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "plans").exists()


def test_a_program_for_tpus(command, tmp_path):
    pytest.importorskip("libtpu")
    outcome = command("plan", "--topology=v5e-4", "--gin.MESH_EXPERT=4", *RUN)
    assert outcome.status == 0, outcome.err
    assert "of 16.91: fits" in outcome.out
    assert "limited by" in outcome.out
    values = json.loads((tmp_path / "plans/tiny_switch-v5e-2x2/plan.json").read_text())
    kinds = {(one["kind"], *one["axes"]) for one in values["collectives"]}
    assert ("all-to-all", "expert") in kinds
    assert values["fits"] is True


def test_two_slices_pass_only_sums_between_them(command, tmp_path):
    pytest.importorskip("libtpu")
    flags = ("--topology=2xv5e:2x2", "--gin.MESH_EXPERT=4", "--gin.MESH_REPLICA=2")
    outcome = command("plan", *flags, *RUN)
    assert outcome.status == 0, outcome.err
    values = json.loads((tmp_path / "plans/tiny_switch-2xv5e-2x2/plan.json").read_text())
    between = {one["kind"] for one in values["collectives"] if "replica" in one["axes"]}
    assert between == {"all-reduce"}
    assert values["bound"]["network"]["dcn"] > 0


def test_a_program_that_does_not_fit(command, tmp_path):
    pytest.importorskip("libtpu")
    large = ["--gin.ModelConfig.d_ff=2097152", "--gin.MESH_EXPERT=4", "--gin.NUM_EXPERTS=32"]
    outcome = command("plan", "--topology=v5e-4", *RUN, *large)
    assert outcome.status == 2
    assert "does not fit" in outcome.out
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("switchx:")]
    assert "GB too little; try " in line
    assert (tmp_path / "plans/tiny_switch-v5e-2x2/plan.png").exists()


def test_without_a_compiler_the_plan_is_analytic(command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = command("plan", "--topology=v5p-8", "--gin.MESH_EXPERT=4", *RUN)
    assert outcome.status == 0, outcome.err
    assert "Nothing was compiled: libtpu" in outcome.out
    assert "make install EXTRAS='dev plan'" in outcome.out
    assert "limited by" in outcome.out
