"""Each mistake gets one line that names the setting, and exit status 2."""

import pytest

from switchx import data

RUN = (
    "--gin_file=configs/models/tiny_switch.gin",
    "--gin.MIXTURE_OR_TASK_NAME=my_task",
    "--gin.TRAIN_STEPS=10",
    "--gin.BATCH_SIZE=32",
)


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """A mistake that is not found before the data is looked at fails the test."""

    def reached(*_):
        raise AssertionError("the mistake was not found")

    monkeypatch.setattr(data, "preflight", reached)


def refused(outcome) -> str:
    assert outcome.status == 2, outcome
    assert outcome.err.startswith("switchx: ")
    assert outcome.err.endswith((".\n", ".)\n"))
    assert outcome.err.count("\n") == 1
    return outcome.err


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        # names
        (["--gin.TRAIN_STEP=5"], ["--gin.TRAIN_STEP=5", "the nearest name is TRAIN_STEPS"]),
        (["--gin.ModelConfig.dmodel=5"], ["'dmodel'", "ModelConfig.d_model"]),
        (["--gin.ModelConfg.d_ff=5"], ["'ModelConfg'", "ModelConfig.d_ff"]),
        (["--gin.utils.x=5"], ["'utils'", "there are ModelConfig, SwitchConfig"]),
        (["--gin.train/MeshConfig.data=1"], ["the scope in train/..."]),
        (["--gin.ModelConfig.switch=@Switch()"], ["@Switch()", "SwitchConfig"]),
        (["--gin.USE_CACHED_TASKS=True"], ["USE_CACHED_TASKS", "leave it out"]),
        (["--gin.NUM_MICROBATCHES=2"], ["its name here is MICROBATCHES"]),
        (["--gin_file=configs/models/t5_base.gin", "--gin.NUM_EXPERTS=4"], ["--gin.NUM_EXPERTS=4"]),
        # values
        (["--gin.TRAIN_STEPS=many"], ["TRAIN_STEPS='many' must be a whole number"]),
        (["--gin.TRAIN_STEPS=1e5"], ["TRAIN_STEPS=100000.0 must be a whole number"]),
        (["--gin.TEXT_FILES=a.txt"], ["must be a dictionary such as {'train': 'text/*.txt', 'v"]),
        (["--gin.MIXTURE_TASKS=3"], ["MIXTURE_TASKS=3 must be a list or a dictionary or None."]),
        (["--gin.WARMUP_STEPS=True"], ["WARMUP_STEPS=True must be a whole number"]),
        (["--gin.DROPOUT_RATE=low"], ["DROPOUT_RATE='low' must be a number"]),
        (["--gin.EXPERT_DROPOUT_RATE=low"], ["EXPERT_DROPOUT_RATE='low'", "a number or None"]),
        (["--gin.ModelConfig.scan=1"], ["ModelConfig.scan=1 must be True or False"]),
        (["--gin.ModelConfig.switch=8"], ["ModelConfig.switch=8 must be @SwitchConfig() or None"]),
        (["--gin.TASK_FEATURE_LENGTHS=512"], ["TASK_FEATURE_LENGTHS=512", "a dictionary"]),
        (["--gin.TASK_FEATURE_LENGTHS={'inputs': 4}"], ["TASK_FEATURE_LENGTHS", "'targets'"]),
        (["--gin.TASK_FEATURE_LENGTHS={'inputs"], ["not valid gin"]),
        (["--gin.LEARNING_RATE=1e999"], ["LEARNING_RATE=inf is not finite"]),
        (["--gin.TRAIN_STEPS=9223372036854775808"], ["TRAIN_STEPS=9223", "too large for 64 bits"]),
        (["--gin.CLIP_GLOBAL_NORM=-1.0"], ["CLIP_GLOBAL_NORM=-1.0 must be above 0, or None"]),
        (["--gin.CLIP_GLOBAL_NORM=0"], ["CLIP_GLOBAL_NORM=0 must be above 0, or None"]),
        (["--gin.Z_LOSS=-0.1"], ["Z_LOSS=-0.1 must be a number of at least 0"]),
        (["--gin.OptimizerConfig.beta2=1.0"], ["OptimizerConfig.beta2=1.0", "below 1"]),
        (["--gin.ModelConfig.init_scale=0.0"], ["ModelConfig.init_scale=0.0 must be above 0"]),
        (["--gin.ModelConfig.relative_buckets=3"], ["relative_buckets=3", "at least 4"]),
        (["--gin.ModelConfig.relative_max_distance=16"], ["relative_max_distance=16", "above 16"]),
        (["--gin.SwitchConfig.balance_loss_weight=-1"], ["balance_loss_weight=-1", "at least 0"]),
        (["--gin.DTYPE=bf16"], ["DTYPE='bf16'", "float32, bfloat16"]),
        (["--gin.OPTIMIZER=sgd"], ["OPTIMIZER='sgd'", "adafactor, adamw"]),
        (["--gin.MODEL_DIR=5"], ["MODEL_DIR=5 must be a string"]),
        (
            ["--gin.DataConfig.batch_size=8"],
            ["DataConfig.batch_size takes the place of BATCH_SIZE", "set BATCH_SIZE in its place"],
        ),
        (["--gin.BATCH_SIZE=%HALF"], ["BATCH_SIZE uses %HALF, which is not set"]),
        (["--gin.BATCH_SIZE=%A", "--gin.A=%BATCH_SIZE"], ["defined by itself"]),
        # sizes that do not fit together
        (["--gin.BATCH_SIZE=12"], ["BATCH_SIZE=12 must be a multiple of", "MESH_DATA"]),
        (["--gin.MESH_DATA=3"], ["MESH_DATA=3", "8 devices"]),
        (["--gin.MESH_DATA=-1", "--gin.MESH_MODEL=-1"], ["at most one may be -1"]),
        (
            ["--gin.NUM_EXPERTS=6", "--gin.MESH_EXPERT=4"],
            ["NUM_EXPERTS=6 must be a multiple of MESH_EXPERT=4"],
        ),
        (["--gin.ENCODER_GROUP_SIZE=1000"], ["ENCODER_GROUP_SIZE=1000", "BATCH_SIZE=32"]),
    ],
)
def test_a_wrong_setting(command, flags, parts):
    said = refused(command("train", *RUN, *flags))
    assert all(part in said for part in parts), said


@pytest.mark.parametrize(
    ("left_out", "parts"),
    [
        ("--gin.TRAIN_STEPS", ["TRAIN_STEPS is required", "--gin.TRAIN_STEPS=VALUE"]),
        ("--gin.MIXTURE", ["MIXTURE_OR_TASK_NAME is required"]),
        ("--gin_file", ["C4_JSON_TRAIN is required", "VALUE and --gin.C4_JSON_VALIDATION=VALUE."]),
    ],
)
def test_something_required_is_missing(command, left_out, parts):
    files = ["--gin_file=configs/runs/pretrain_c4_json.gin"] if left_out == "--gin_file" else []
    flags = [flag for flag in RUN if not flag.startswith(left_out)]
    said = refused(command("train", *files, *flags))
    assert all(part in said for part in parts), said


def test_no_model(command):
    run = ["--gin_file=configs/runs/pretrain_c4.gin", "--gin.TFDS_DATA_DIR=/tfds"]
    assert "--gin_file=configs/models/" in refused(command("train", *run))
    base = "--gin_file=configs/models/switch_base.gin"
    assert "NUM_EXPERTS is required" in refused(command("train", base, *run))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SEED = 1\nBATCH_SIZE = [8\n", ["my.gin line", "not valid gin"]),
        ("SEED = 1\n\nBATCH_SIZE 8\n", ["my.gin line 3", "not valid gin"]),
        ("SEED = $\n", ["my.gin line 1", "not valid gin"]),
        ("ModelConfig:\nd_model = 8\n", ["my.gin line", "not valid gin"]),
        ("SEED = 1\nTRAIN_STEP = 5\n", ["my.gin line 2: nothing uses TRAIN_STEP:", "TRAIN_STEPS"]),
        ("SwitchConfig:\n  every = 1\n  jiter = 0.0\n", ["my.gin line 3", "SwitchConfig.jitter"]),
        ("include 'other.gin'\n", ["include 'other.gin' (my.gin line 1) was not found"]),
        ("include 'my.gin'\n", ["includes itself"]),
    ],
)
def test_a_wrong_file(command, tmp_path, text, parts):
    (tmp_path / "my.gin").write_text(text)
    said = refused(command("train", *RUN, "--gin_file=my.gin"))
    assert all(part in said for part in parts), said


def test_no_such_gin_file(command, tmp_path):
    said = refused(command("train", "--gin_file=switch_bas_8.gin"))
    assert "--gin_file='switch_bas_8.gin' was not found" in said
    assert str(tmp_path) in said
    assert "configs/models/switch_base_8.gin" in said
    (tmp_path / "runs/a").mkdir(parents=True)
    said = refused(command("train", "--gin_file=runs/a"))
    assert "='runs/a' is a folder: name a file in it, of a run's directory 'runs/a/config" in said


def test_an_unreadable_gin_file(command, tmp_path):
    (tmp_path / "my.gin").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in refused(command("train", "--gin_file=my.gin"))


def test_a_model_dir_that_is_a_file(command, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert "MODEL_DIR='file'" in refused(command("train", *RUN, "--model_dir=file"))
    assert "MODEL_DIR='file/run'" in refused(command("train", *RUN, "--model_dir=file/run"))
    assert (tmp_path / "file").read_text() == "kept"
