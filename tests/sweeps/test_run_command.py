"""`switchx sweep run`, of real points: each is the run that its own configuration gives alone."""

import json
import shutil

import pytest
from fault_runs import differences

from switchx import storage
from switchx.cli.main import main
from switchx.sweeps.folder import SweepFolder

GIN = """
include 'configs/runs/quickstart.gin'
VOCABULARY = 'bytes'
MIXTURE_OR_TASK_NAME = 'c4_json_span_corruption'
C4_JSON_TRAIN = '{data}/train.jsonl'
C4_JSON_VALIDATION = '{data}/validation.jsonl'
TASK_FEATURE_LENGTHS = {{'inputs': 64, 'targets': 32}}
ENCODER_GROUP_SIZE = 64
DECODER_GROUP_SIZE = 32
BATCH_SIZE = 8
EVAL_STEPS = 1
LOG_PERIOD = 1
EVAL_PERIOD = 4
CHECKPOINT_PERIOD = 4
TRAIN_STEPS = 4
METRIC_WRITERS = ()
ModelConfig.vocab_size = 384
ModelConfig.d_model = 32
ModelConfig.d_ff = 32
ModelConfig.num_layers = 1
SwitchConfig.every = 1
SweepConfig.axes = {axes}
SweepConfig.retries = 0
"""


def stated(folder, trained, axes):
    """The gin file of a sweep over what `trained` was trained on."""
    file = folder / "toy.gin"
    file.write_text(GIN.format(data=trained.folder, axes=axes))
    return f"--gin_file={file}"


@pytest.fixture(scope="module")
def swept(tmp_path_factory, trained):
    """Two points of equal shapes and one that cannot run here, after a worker was at them."""
    folder = tmp_path_factory.mktemp("swept")
    gin = stated(folder, trained, "{'SEED': [0, 1], 'MESH_DATA': [8, 3]}")
    directory = folder / "sweep"
    exclude = '--gin.SweepConfig.exclude=["MESH_DATA == 3 and SEED == 1"]'
    assert main(["sweep", "run", gin, exclude, f"--sweep_dir={directory}"]) == 0
    return SweepFolder.open(directory)


def done_of(folder, point):
    content = storage.read_if_there(folder.state_directory(point) / "done.json", "X")
    return None if content is None else json.loads(content)


def test_each_point_is_bitwise_the_run_of_its_configuration(swept, tmp_path):
    first, stranger, second = swept.points
    for point in (first, second):
        done = done_of(swept, point)
        assert done["steps"] == 4
        assert done["seconds"] > 0
    assert done_of(swept, stranger) is None
    config = swept.config_file(second)
    before = config.read_bytes()
    assert main(["train", f"--gin_file={config}", f"--model_dir={tmp_path / 'alone'}"]) == 0
    assert differences(swept.run_directory(second), tmp_path / "alone", 4) == []
    assert config.read_bytes() == before


def test_a_kill_before_done_was_written_costs_no_step(swept, tmp_path, capfd):
    copy = tmp_path / "copy"
    shutil.copytree(swept.path, copy)
    folder = SweepFolder.open(copy)
    point = folder.points[0]
    (folder.state_directory(point) / "done.json").unlink()
    rows = (folder.run_directory(point) / "metrics.jsonl").read_bytes()
    assert main(["sweep", "run", f"--sweep_dir={copy}"]) == 0
    said = capfd.readouterr().err
    assert "loss 4" not in said.split("is done")[0]
    assert "step 1/4" not in said
    assert "MESH_DATA=3" in said  # what the other point lacks
    assert done_of(folder, point)["loss"] == done_of(swept, point)["loss"]
    assert (folder.run_directory(point) / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("SEED = 7\n", "which is not what the sweep wrote there: remove the file, plan the sweep"),
        (None, "which is missing: plan the sweep again"),
    ],
)
def test_a_configuration_changed_by_hand_is_a_failure_of_its_point(
    content, said, swept, tmp_path, capfd
):
    copy = tmp_path / "copy"
    shutil.copytree(swept.path, copy)
    folder = SweepFolder.open(copy)
    point = folder.points[0]
    shutil.rmtree(folder.state_directory(point))
    config = folder.config_file(point)
    if content is None:
        config.unlink()
    else:
        config.write_text(content)
    assert main(["sweep", "run", f"--sweep_dir={copy}"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "1 of 3 points failed" in last
    assert f"config.gin', {said}" in last
    assert f"`switchx sweep run --sweep_dir={copy} --retry_failed` tries" in last


def test_in_a_bucket(gs, tmp_path, trained):
    gin, directory = stated(tmp_path, trained, "{'SEED': [0]}"), f"{gs.folder()}/sweep"
    assert main(["sweep", "run", gin, f"--sweep_dir={directory}"]) == 0
    folder = SweepFolder.open(directory)
    (point,) = folder.points
    assert done_of(folder, point)["steps"] == 4
    assert storage.names_in(folder.state_directory(point), "X") == {"claim.0", "done.json"}
    assert main(["sweep", "run", f"--sweep_dir={directory}"]) == 0  # there is nothing to do
