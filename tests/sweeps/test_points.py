"""What a sweep's file comes to: axes, rules, lengths, forks, and each mistake's one line."""

import itertools
import math
import re

import pytest

from switchx.errors import UserError
from switchx.model import forward_flops
from switchx.planning.summary import Summary
from switchx.settings import Request, load, read_flag
from switchx.sweeps import counting, points, statement

TINY = """
include 'configs/models/tiny_switch.gin'
MIXTURE_OR_TASK_NAME = 'c4_json_span_corruption'
C4_JSON_TRAIN = 'x'
C4_JSON_VALIDATION = 'x'
VOCABULARY = 'bytes'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 32}
ENCODER_GROUP_SIZE = 64
DECODER_GROUP_SIZE = 32
BATCH_SIZE = 8
TRAIN_STEPS = 100
"""


def resolved(folder, text, *flags, head=TINY):
    file = folder / "mine.gin"
    file.write_text(head + text)
    bindings = tuple(read_flag(flag) for flag in flags)
    return points.resolve(statement.read(Request((str(file),), bindings)))


def refused(folder, text, *flags, **kwargs):
    with pytest.raises(UserError) as caught:
        resolved(folder, text, *flags, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_axes_are_crossed_but_for_those_that_are_zipped(tmp_path):
    found = resolved(
        tmp_path,
        """
SweepConfig.axes = {
  'NUM_EXPERTS': [1, 4, 8], 'SEED': [0, 1], 'MESH_EXPERT': [1, 2, 4], 'ModelConfig.d_ff': [32, 64]}
SweepConfig.zipped = [('NUM_EXPERTS', 'MESH_EXPERT')]
SweepConfig.exclude = [
  'NUM_EXPERTS == 8 and ModelConfig.d_ff > 32', 'SEED > 0 and MESH_EXPERT == 1']
""",
    )
    expected = [
        (experts, seed, mesh, width)
        for (experts, mesh), seed, width in itertools.product(
            ((1, 1), (4, 2), (8, 4)), (0, 1), (32, 64)
        )
        if not (experts == 8 and width > 32) and not (seed > 0 and mesh == 1)
    ]
    assert [tuple(each.point.varied.values()) for each in found] == expected
    for each in found:
        run, varied = each.settings.run, each.point.varied
        assert (run.model.switch.num_experts if run.model.switch else 1) == varied["NUM_EXPERTS"]
        assert run.mesh.expert == varied["MESH_EXPERT"]
        assert run.model.d_ff == varied["ModelConfig.d_ff"]
    assert len({each.point.name for each in found}) == len(found)


def test_rules_follow_each_other_and_the_budget(tmp_path):
    found = resolved(
        tmp_path,
        """
BUDGET_FLOPS = 1e10
SweepConfig.axes = {'WIDTH': [16, 32], 'BATCH_SIZE': [8, 16]}
SweepConfig.rules = {
  'WARMUP_STEPS': 'max(1, TRAIN_STEPS // 10)',
  'ModelConfig.d_ff': '4 * ModelConfig.d_model',
  'ModelConfig.d_model': 'WIDTH * 2',
  'EVAL_BATCH_SIZE': 'BATCH_SIZE // 2',
  'LEARNING_RATE': '1 / sqrt(parameters)',
  'ModelConfig.init_scale': 0.5,
}
""",
    )
    assert len(found) == 4
    for each in found:
        run, width = each.settings.run, each.point.varied["WIDTH"]
        step = 3 * run.batch.batch_size * forward_flops(run.model, 64, 32)
        steps = run.trainer.train_steps
        assert each.point.flops == steps * step
        assert each.point.flops <= 1e10 < (steps + 1) * step
        assert each.point.tokens == steps * run.batch.batch_size * 96
        assert run.optimizer.warmup_steps == max(1, steps // 10)
        assert (run.model.d_model, run.model.d_ff) == (2 * width, 8 * width)
        assert run.eval_batch.batch_size == run.batch.batch_size // 2
        assert run.optimizer.learning_rate == 1 / math.sqrt(each.point.parameters)
        assert run.model.init_scale == 0.5


def test_what_is_counted(tmp_path):
    """Against the products written out: 8 experts in one of two layers of each stack."""
    counts = {}
    for counted in ("('logits',)", "()", "('logits', 'router')"):
        text = f"SweepConfig.axes = {{'SEED': [0]}}\nSweepConfig.counted = {counted}\n"
        counts[counted] = resolved(tmp_path, text)[0].point.flops // (100 * 8 * 6)
    logits, router = 32 * 2176 * 128, (64 + 32) * 128 * 8
    assert counts["('logits',)"] - counts["()"] == logits
    assert counts["('logits', 'router')"] - counts["('logits',)"] == router


def test_parameters_are_those_of_the_model(tmp_path):
    text = "SwitchConfig.extra_dense = True\nSwitchConfig.top_k = 2\nModelConfig.d_model = 32\n"
    (found,) = resolved(tmp_path, f"SweepConfig.axes = {{'SEED': [0]}}\n{text}")
    summary = Summary.of(found.settings.run)
    assert found.point.parameters == summary.num_parameters
    per_token = counting.parameters(found.settings.run.model, per_token=True)
    assert per_token == summary.parameters_per_token


def test_points_that_differ_in_length_alone_are_forks(tmp_path):
    found = resolved(
        tmp_path,
        """
SCHEDULE = 'wsd'
WARMUP_STEPS = 5
CHECKPOINT_STEPS = (50,)
SweepConfig.axes = {'TRAIN_STEPS': [20, 90, 40], 'SEED': [0, 1]}
SweepConfig.exclude = ['SEED == 1 and TRAIN_STEPS < 50']
""",
    )
    named = {(p.varied["TRAIN_STEPS"], p.varied["SEED"]): p for p in (each.point for each in found)}
    longest = named[90, 0]
    assert (named[20, 0].fork.point, named[20, 0].fork.step) == (longest.name, 18)
    assert (named[40, 0].fork.point, named[40, 0].fork.step) == (longest.name, 36)
    assert longest.fork is None
    assert named[90, 1].fork is None
    saved = [each.settings.run.trainer.checkpoint_steps for each in found]
    assert saved == [(50,), (18, 36, 50), (50,), (50,)]


def test_files_are_an_axis_and_the_command_line_wins_over_them(tmp_path):
    (tmp_path / "wide.gin").write_text("ModelConfig.d_ff = 256\nLOG_PERIOD = 7\n")
    (tmp_path / "slim.gin").write_text("ModelConfig.d_ff = 16\nModelConfig.switch = None\n")
    text = "SweepConfig.axes = {'gin_file': ['slim.gin', 'wide.gin']}\nLOG_PERIOD = 3\n"
    found = resolved(tmp_path, text)
    assert [each.settings.run.model.d_ff for each in found] == [16, 256]
    assert [each.settings.run.trainer.log_period for each in found] == [3, 7]
    assert [each.point.varied for each in found] == [{"gin_file": "slim"}, {"gin_file": "wide"}]
    found = resolved(tmp_path, text, "LOG_PERIOD=5", "NUM_EXPERTS=4")
    assert [each.settings.run.trainer.log_period for each in found] == [5, 5]
    assert found[0].settings.run.model.switch is None


SEEDS = "SweepConfig.axes = {'SEED': [0, 1]}\n"
MISTAKES = {
    "SweepConfig.axes = {'NUM_EXPERT': [1]}": "'NUM_EXPERT', which no macro or parameter knows: "
    "the nearest name is NUM_EXPERTS",
    "SweepConfig.axes = {'SEED': []}": r"axes\['SEED'\]=\[\] is an empty axis",
    "SweepConfig.axes = {'SEED': 3}": r"axes\['SEED'\]=3 must be a list",
    "SweepConfig.axes = {'MODEL_DIR': ['x']}": "'MODEL_DIR', which is not a sweep's to vary",
    "SweepConfig.axes = {'SEED': [0, 0]}": "two points that are the same run, SEED=0 and SEED=0",
    "SweepConfig.axes = {'NUM_EXPERTS': [1], 'DISPATCHER': ['index', 'einsum']}": "NUM_EXPERTS=1, "
    "DISPATCHER='index' and NUM_EXPERTS=1, DISPATCHER='einsum': leave one out",
    "SweepConfig.axes = {'gin_file': ['no_such.gin']}": "'no_such.gin' was not found",
    "SweepConfig.axes = {'gin_file': ['configs/sweeps/toy.gin']}": "which states a sweep itself",
    "SweepConfig.axes = {'gin_file': [3]}": "has 3, which is no file's name",
    "SweepConfig.axes = {'NUM_EXPERTS': [1, 2]}\nSwitchConfig.top_k = 2": "NUM_EXPERTS=1 is the "
    "dense model of equal FLOPs, and to experts with SwitchConfig.top_k=2",
    "SweepConfig.axes = {'SEED': ['a']}": "SEED='a' must be a whole number.*At SEED='a'",
    SEEDS + "BUDGET_FLOPS = 1e6": r"BUDGET_FLOPS=1e\+06 is less than the .* FLOPs of one step",
    SEEDS + "BUDGET_FLOPS = -1": "BUDGET_FLOPS=-1 must be above 0",
    SEEDS + "BUDGET_FLOPS = 1e9\nSweepConfig.rules = {'TRAIN_STEPS': '9'}": "a value for "
    "TRAIN_STEPS and BUDGET_FLOPS",
    SEEDS + "SweepConfig.rules = {'BATCH_SIZE': 'BATCH_SIZ * 2'}": "refers to 'BATCH_SIZ', which "
    "is no setting: the nearest name is BATCH_SIZE",
    SEEDS + "SweepConfig.rules = {'BATCHES': '2'}": "'BATCHES', which no macro or parameter knows",
    SEEDS + "SweepConfig.rules = {'SEED': '2'}": "'SEED', which is an axis too",
    SEEDS + "SweepConfig.rules = {'BATCH_SIZE': 'print(3)'}": "is not arithmetic",
    SEEDS + "SweepConfig.rules = {'BATCH_SIZE': 'TRAIN_STEPS / 16'}": "BATCH_SIZE=6.25 must be a "
    "whole number.*BATCH_SIZE: rule 'TRAIN_STEPS / 16'",
    SEEDS + "SweepConfig.rules = {'BATCH_SIZE': 'EVAL_STEPS', 'EVAL_STEPS': 'BATCH_SIZE'}": "in a "
    r"circle \(BATCH_SIZE -> EVAL_STEPS -> BATCH_SIZE\)",
    SEEDS + "BUDGET_FLOPS = 1e10\nSweepConfig.rules = {'BATCH_SIZE': 'TRAIN_STEPS'}": "in a circle",
    SEEDS + "SweepConfig.exclude = ['SEED > 1']": "'SEED > 1', which leaves out no point",
    SEEDS + "SweepConfig.exclude = ['SEED >= 0']": "leaves no point",
    SEEDS + "SweepConfig.exclude = ['SIZE > 0']": "refers to 'SIZE', which is no setting",
    SEEDS + "SweepConfig.zipped = ['SEED']": "has 'SEED', which is no group",
    SEEDS + "SweepConfig.zipped = [('SEED', 'BATCH_SIZE')]": "has 'BATCH_SIZE', which is no axis",
    "SweepConfig.axes = {'SEED': [0], 'BATCH_SIZE': [8, 16]}\nSweepConfig.zipped = [('SEED', "
    "'BATCH_SIZE')]": "needs as many values of each axis: SEED has 1, BATCH_SIZE has 2",
    SEEDS + "SweepConfig.order = 'random'": "SweepConfig.order='random' is not one of longest",
    SEEDS + "SweepConfig.retries = -1": "SweepConfig.retries=-1 must be a whole number of at",
    SEEDS + "SweepConfig.retry = 1": "SweepConfig has no parameter 'retry'",
    SEEDS + "SweepConfig.budget_flops = 1e15": "SweepConfig.budget_flops takes the place of BUDGET",
    SEEDS + "SweepConfig.name = '..'": "name='..' must be a name that a folder can have",
    SEEDS + "BATCHSIZE = 3": "nothing uses BATCHSIZE: the nearest name is BATCH_SIZE",
    "": "states no sweep: give it SweepConfig.axes",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_is_one_line(tmp_path, text):
    said = refused(tmp_path, text)
    assert re.search(MISTAKES[text], said), said


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("SEED=3", "--gin.SEED=3: SEED has an axis in the sweep"),
        ("EVAL_STEPS=3", "--gin.EVAL_STEPS=3: EVAL_STEPS has a rule in the sweep"),
        ("TRAIN_STEPS=3", "follows from BUDGET_FLOPS in the sweep: add --gin.BUDGET_FLOPS=None"),
        ("NUM_EXPERTS=3", "--gin.NUM_EXPERTS=3: no point of the sweep uses it"),
    ],
)
def test_flags_that_would_do_nothing(tmp_path, flag, why):
    text = "SweepConfig.rules = {'EVAL_STEPS': '3'}\nBUDGET_FLOPS = 1e10\n"
    assert why in refused(tmp_path, SEEDS + text + "ModelConfig.switch = None\n", flag)


def test_a_sweep_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"toy\.gin states a sweep, which is no single run"):
        load(Request(("configs/sweeps/toy.gin",)))
