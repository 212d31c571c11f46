"""From flags and gin files to settings."""

import re

import pytest

from switchx.cli.flags import Parser, add_common_arguments, request, rewrite_gin_flags
from switchx.errors import UserError
from switchx.settings import Request, Settings, load, read_flag

TINY = "--gin_file=configs/models/tiny_switch.gin"
DENSE = "--gin_file=configs/models/tiny_dense.gin"
TASK = "--gin.MIXTURE_OR_TASK_NAME=my_task"
STEPS = "--gin.TRAIN_STEPS=10"


def asked(*argv: str) -> Request:
    parser = Parser(prog="test")
    add_common_arguments(parser)
    return request(parser.parse_args(rewrite_gin_flags(list(argv))))


def settings(*argv: str) -> Settings:
    return load(asked(*argv))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_no_arguments_are_the_quickstart():
    found = settings()
    assert found.data.mixture_or_task_name == "python_docs_span_corruption"
    assert found.run.model.switch is not None
    assert found.run.model.switch.num_experts >= 8
    assert found.model_dir == "runs/quickstart"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--model_dir=elsewhere", "--gin.TRAIN_STEPS=7", "--gin.SwitchConfig.jitter=0.5"],
        [DENSE, TASK, STEPS, "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}"],
        [DENSE, TASK, STEPS, "--gin.WIDTH=96", "--gin.ModelConfig.d_model=%WIDTH"],
        ["--gin_file=configs/models/moe_base.gin", TASK, STEPS, "--gin.MESH_EXPERT=4"],
        [
            "--gin_file=configs/models/switch_base_8.gin",
            "--gin_file=configs/runs/pretrain_c4_json.gin",
            "--gin.C4_JSON_TRAIN=/c4/train-*.gz",
            '--gin.C4_JSON_VALIDATION=it\'s a "glob"\\*',
        ],
    ],
)
def test_resolved_text_gives_the_same_settings(tmp_path, argv):
    found = settings(*argv)
    (tmp_path / "resolved.gin").write_text(found.resolved)
    assert settings("--gin_file=resolved.gin") == found


def test_resolved_text_leaves_out_what_has_no_effect():
    assert "SwitchConfig" not in settings(DENSE, TASK, STEPS).resolved
    assert "NUM_EXPERTS = 8" in settings(TINY, TASK, STEPS).resolved


def test_macros_reach_every_part_of_the_run():
    found = settings(
        TINY,
        TASK,
        STEPS,
        "--gin.BATCH_SIZE=24",
        "--gin.EVAL_BATCH_SIZE=16",
        "--gin.SEED=3",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 256, 'targets': 57}",
        "--gin.MIXTURE_OR_TASK_MODULE=my.tasks",
        "--gin.NUM_EXPERTS=4",
        "--gin.LEARNING_RATE=1",
        "--gin.MESH_MODEL=2",
        "--gin.DROPOUT_RATE=0.1",
        "--gin.DTYPE=bfloat16",
    )
    run, data = found.run, found.data
    assert (run.batch.batch_size, run.batch.input_length, run.batch.target_length) == (24, 256, 57)
    assert run.eval_batch.batch_size == 16
    assert run.trainer.seed == data.seed == 3
    assert data.task_module == "my.tasks"
    assert run.model.switch.num_experts == 4
    assert run.optimizer.learning_rate == 1
    assert run.mesh.model == 2
    assert (run.model.dropout_rate, run.model.dtype) == (0.1, "bfloat16")


def test_flags_win_over_files_and_later_files_over_earlier_ones(tmp_path):
    (tmp_path / "a.gin").write_text("BATCH_SIZE = 1\nSEED = 1\nLOG_PERIOD = 1\n")
    (tmp_path / "b.gin").write_text("SEED = 2\nLOG_PERIOD = 2\n")
    files = ["--gin_file=a.gin", "--gin_file=b.gin"]
    found = settings(DENSE, *files, TASK, STEPS, "--gin.LOG_PERIOD=3")
    trainer = found.run.trainer
    assert (found.data.batch_size, trainer.seed, trainer.log_period) == (1, 2, 3)


def test_a_later_model_file_replaces_the_model_of_a_run():
    assert settings("--gin_file=configs/runs/quickstart.gin", DENSE).run.model.switch is None


def test_gin_files_are_found_here_then_on_search_paths_then_in_the_repository(tmp_path):
    for folder, seed in ((tmp_path / "far/configs/models", 1), (tmp_path / "configs/models", 2)):
        folder.mkdir(parents=True)
        text = (folder / "tiny_dense.gin").write_text(f"include 'sizes.gin'\nSEED = {seed}\n")
        assert text
    (tmp_path / "far/sizes.gin").write_text("".join(f"{line}\n" for line in _sizes()))
    far = "--gin_search_paths=far"
    assert settings(DENSE, far, TASK, STEPS).data.seed == 2
    (tmp_path / "configs/models/tiny_dense.gin").unlink()
    assert settings(DENSE, far, TASK, STEPS).data.seed == 1
    assert settings(DENSE, TASK, STEPS).data.seed == 0


def _sizes():
    names = ("vocab_size", "d_model", "d_ff", "d_kv", "num_heads", "num_layers")
    return [f"ModelConfig.{name} = 8" for name in names]


@pytest.mark.parametrize(
    ("argv", "model_dir"),
    [
        ([TINY, TASK, STEPS], "runs/tiny_switch-my_task"),
        ([TASK], "runs/quickstart-my_task"),
        (["--gin_file=whole.gin"], "runs/whole"),
        (
            ["--gin_file=configs/models/switch_base_8.gin", TASK, STEPS],
            "runs/switch_base_8-my_task",
        ),
        (["--gin.MODEL_DIR=x"], "x"),
        (["--model_dir=~/x"], "/home/me/x"),
        (["--gin.MODEL_DIR=x", "--model_dir=a b/y[1]"], "a b/y[1]"),
    ],
)
def test_model_dir(tmp_path, monkeypatch, argv, model_dir):
    monkeypatch.setenv("HOME", "/home/me")
    whole = "include 'configs/models/tiny_dense.gin'\n"
    whole += "MIXTURE_OR_TASK_NAME = 'my_task'\nTRAIN_STEPS = 1\n"
    (tmp_path / "whole.gin").write_text(whole)
    assert settings(*argv).model_dir == model_dir


def test_eval_and_infer_read_the_configuration_that_a_run_saved(tmp_path):
    trained = settings("--gin.TRAIN_STEPS=7", "--model_dir=kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/config.gin").write_text(trained.resolved)
    assert load(asked("--model_dir=kept").of_run()) == trained
    (tmp_path / "kept").rename(tmp_path / "moved")
    moved = load(asked("--model_dir=moved").of_run())
    assert (moved.run, moved.model_dir) == (trained.run, "moved")


def test_eval_without_a_run_says_where_it_looked():
    with pytest.raises(UserError, match=r"--model_dir=runs/quickstart holds no config.gin"):
        asked().of_run()


def test_eval_of_a_checkpoint_names_its_runs_directory(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    said = re.escape(f"name the run's directory, {tmp_path}, or its configuration")
    for below in ("checkpoints", "checkpoints/20"):
        with pytest.raises(UserError, match=said):
            asked(f"--model_dir={tmp_path}/{below}").of_run()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("A=1", 1),
        ("A=-2.5e-3", -2.5e-3),
        ("A=None", None),
        ("A='quoted'", "quoted"),
        ("A=c4_json_span_corruption", "c4_json_span_corruption"),
        ("A=/data/c4-train.*-of-*.json.gz", "/data/c4-train.*-of-*.json.gz"),
        ("A=gs://bucket/a=b", "gs://bucket/a=b"),
        ("A=10k", "10k"),
        ("A={'inputs': 1}", {"inputs": 1}),
        ("A=(1, 'b')", (1, "b")),
    ],
)
def test_values_of_flags(flag, value):
    assert read_flag(flag).value == value
