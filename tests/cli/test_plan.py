"""`switchx plan` as a user types it."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import QUICKLY

RUN = [
    "--gin_file=configs/models/tiny_switch.gin",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.ENCODER_GROUP_SIZE=32",
    "--gin.DECODER_GROUP_SIZE=16",
    "--gin.SwitchConfig.every=1",
    "--gin.BATCH_SIZE=16",
    "--gin.ModelConfig.d_model=128",
    "--gin.ModelConfig.d_ff=128",
    "--gin.ModelConfig.vocab_size=256",
    "--gin.ModelConfig.num_layers=1",
]
NAMED = ["--gin.MESH_DATA=2", "--gin.MESH_EXPERT=4"]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan for 8 CPU devices, made in a process and with a cache of its own: (python, output).

    `python` starts another such process with the same run.
    """
    folder = tmp_path_factory.mktemp("planned")
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": QUICKLY,
    }

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments, *RUN, *NAMED],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    output = python("-m", "switchx.cli.main", "plan", "--topology=cpu:8")
    return folder, python, output


def test_a_plan_for_cpu_devices(planned):
    folder, _, output = planned
    for part in (
        "8 CPU devices",
        "MESH_EXPERT=4",
        "gradients",
        "all-to-all of f32 over expert",
        "compiled in",
    ):
        assert part in output
    plan = folder / "plans/tiny_switch-cpu-8"
    assert (plan / "plan.txt").read_text() == output
    assert (plan / "plan.png").stat().st_size > 10_000
    values = json.loads((plan / "plan.json").read_text())
    assert values["mesh"] == {"replica": 1, "data": 2, "expert": 4, "model": 1}
    memory = values["memory"]
    parts = ("parameters", "optimizer", "gradients", "activations", "batch", "program")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert (values["fits"], values["bound"]) == (None, None)
    assert values["compilation"]["host_bytes"] > 10**8


def test_training_reads_what_the_plan_compiled(planned):
    """In another process, for the same number of CPU devices."""
    _, python, _ = planned
    assert python("-c", COMPILE_AS_TRAINING_DOES).splitlines() == ["hit"]


COMPILE_AS_TRAINING_DOES = """
import argparse, sys
from switchx.cli import environment, flags
parser = flags.Parser()
flags.add_common_arguments(parser)
args = parser.parse_args(flags.rewrite_gin_flags(sys.argv[1:]))
environment.prepare_devices(8)
import jax
from switchx.sharding import make_mesh
from switchx.training.state import Setup
from switchx.training.step import compile_train_step
needed = {"MIXTURE_OR_TASK_NAME": "any", "TRAIN_STEPS": 1}
run = flags.load(args, defaults=needed).run
setup = Setup.of(run, make_mesh(run.mesh))
hit, missed = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"
names = {hit: "hit", missed: "missed"}
jax.monitoring.register_event_listener(lambda e, **_: e in names and print(names[e]))
compile_train_step(setup)
"""


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


def test_a_program_for_two_slices_of_tpus(command, tmp_path):
    pytest.importorskip("libtpu")
    flags = ("--topology=2xv5e-4", "--gin.MESH_EXPERT=4", "--gin.MESH_REPLICA=2")
    outcome = command("plan", *flags, *RUN)
    assert outcome.status == 0, outcome.err
    assert "2 slices, 8 chips, 2 hosts" in outcome.out
    assert "of 16.91: fits" in outcome.out
    assert "limited by" in outcome.out
    values = json.loads((tmp_path / "plans/tiny_switch-2xv5e-2x2/plan.json").read_text())
    assert values["fits"] is True
    exchanges = [one for one in values["collectives"] if "all-to-all" in one["kind"]]
    assert exchanges
    assert all(one["axes"] == ["expert"] for one in exchanges)  # never between slices
    between = [one for one in values["collectives"] if "replica" in one["axes"]]
    assert {one["kind"] for one in between} == {"all-reduce"}  # of gradients and sums
    assert values["bound"]["network"]["dcn"] > 0
    assert "likely time of a step" in outcome.out
    likely = values["likely"]
    assert values["bound"]["seconds"] <= likely["low"] <= likely["seconds"] < likely["high"]
    memory = values["memory"]
    parts = ("parameters", "optimizer", "gradients", "activations", "batch", "program")
    assert memory["total"] == sum(memory[part] for part in parts)


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
