"""What a resumed run is told about settings that are no longer what they were."""

import pytest

from switchx.settings.changes import changed_settings
from tests.settings.test_loading import settings

LINEAR = "--gin.SCHEDULE=linear"


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A run's directory with the configuration of these flags."""
    monkeypatch.chdir(tmp_path)

    def save(*argv):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/config.gin").write_text(settings("--model_dir=run", *argv).resolved)

    return save


def changes(*argv):
    return changed_settings(settings("--model_dir=run", *argv))


def test_nothing_changed(saved):
    saved("--gin.BATCH_SIZE=16")
    assert changes("--gin.BATCH_SIZE=16") == []


def test_a_new_run_has_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert changes() == []


def test_a_line_on_each_setting_by_the_name_a_user_sets(saved):
    saved("--gin.BATCH_SIZE=16", "--gin.SwitchConfig.jitter=0.5", "--gin.CLIP_GLOBAL_NORM=1.0")
    assert changes("--gin.BATCH_SIZE=32", "--gin.SwitchConfig.top_k=2") == [
        "BATCH_SIZE was 16 and is now 32 (the data goes on at its next example; TRAIN_STEPS, "
        "WARMUP_STEPS and the schedule count steps as before, each now of 2 times the examples)",
        "CLIP_GLOBAL_NORM was 1.0 and is now None",
        "SwitchConfig.jitter was 0.5 and is now 0.01",
        "SwitchConfig.top_k was 1 and is now 2",
    ]


def test_what_is_asked_for_once_is_neither_saved_nor_a_change(saved, tmp_path):
    saved("--gin.RESET_DATA=True", "--gin.RESET_OPTIMIZER=True")
    assert "RESET_DATA = False" in (tmp_path / "run/config.gin").read_text()
    assert changes("--gin.RESET_DATA=True") == []
    again = settings("--model_dir=run", "--gin_file=run/config.gin")
    assert not again.run.trainer.reset_data
    assert not again.run.trainer.reset_optimizer


def test_a_default_written_out_is_no_change(saved):
    saved("--gin.OptimizerConfig.beta1=0.9")
    assert changes() == []


def test_a_schedule_that_follows_the_last_step_is_said(saved):
    saved(LINEAR, "--gin.TRAIN_STEPS=400")
    assert changes(LINEAR, "--gin.TRAIN_STEPS=500") == [
        "TRAIN_STEPS was 400 and is now 500 "
        "(SCHEDULE='linear' follows it, so the learning rate changes too)"
    ]


def test_a_configuration_that_cannot_be_read_is_said_and_nothing_in_it_runs(saved, tmp_path):
    saved()
    path = tmp_path / "run/config.gin"
    path.write_text(f"import os\nBATCH_SIZE = __import__('os').mkdir('{tmp_path}/made')\n")
    (line,) = changes()
    assert line.startswith("what changed since the last start is not known: ")
    assert "config.gin line 1: import os has no meaning here" in line
    path.write_text(f"BATCH_SIZE = __import__('os').mkdir('{tmp_path}/made')\n")
    (line,) = changes()
    assert line.startswith("what changed since the last start is not known: ")
    path.write_bytes(b"\xff\xfe")
    (line,) = changes()
    assert line.startswith("what changed since the last start is not known: ")
    assert not (tmp_path / "made").exists()
