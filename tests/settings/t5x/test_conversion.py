"""The converted file alone is the run that T5X's files ask for."""

import re

import pytest

from switchx.errors import UserError
from switchx.settings import Request, converted
from tests.settings.t5x.test_reading import FINETUNE, PRETRAIN, SWITCH
from tests.settings.test_loading import asked, settings

MIXED = PRETRAIN + "WIDTH = 96\nModelConfig.d_kv = %WIDTH\nMESH_EXPERT = 1\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (PRETRAIN, ["--gin.MODEL_DIR=runs/it's"]),
        (SWITCH, ["--gin.MODEL_DIR=runs/x", "--gin.MESH_DATA=2"]),
        (FINETUNE, ["--gin.START_FROM=runs/imported", "--model_dir=runs/b"]),
        (MIXED, ["--gin.MODEL_DIR=runs/x"]),
    ],
)
def test_the_same_run(tmp_path, text, flags):
    (tmp_path / "their.gin").write_text(text)
    request = asked("--gin_file=their.gin", *flags)
    written, notes, missing = converted(request)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/ours.gin").write_text(written)
    (tmp_path / "their.gin").unlink()
    ours = settings("--gin_file=elsewhere/ours.gin")
    (tmp_path / "their.gin").write_text(text)
    theirs = settings("--gin_file=their.gin", *flags)
    assert (ours.run, ours.data, ours.start) == (theirs.run, theirs.data, theirs.start)
    assert (ours.scores, ours.model_dir) == (theirs.scores, theirs.model_dir)
    assert sorted(ours.resolved.split("\n")) == sorted(theirs.resolved.split("\n"))
    assert not ours.theirs
    assert notes
    assert not missing
    assert all(note.split()[0] in written for note in notes)


def test_where_each_setting_comes_from_and_what_is_missing(tmp_path):
    (tmp_path / "their.gin").write_text(PRETRAIN.replace("DROPOUT_RATE = 0.1\n", ""))
    written, *_ = converted(Request(("their.gin",)))
    assert "# Required to be set:\n#   - DROPOUT_RATE\n" in written
    assert re.search(r"\nTRAIN_STEPS = 3000  # their.gin line \d+\n", written)
    assert "\nModelConfig:\n  switch = None  # t5x/examples/t5/t5_1_1/small.gin\n" in written
    assert max(map(len, written.split("\n"))) <= 110
    assert settings("--gin_file=their.gin", "--gin.DROPOUT_RATE=0.1").run.model.d_model == 512


def test_what_is_ours_already(tmp_path):
    (tmp_path / "ours.gin").write_text("SEED = 1\n")
    with pytest.raises(UserError, match=r"ours.gin is switchx's already"):
        converted(Request(("ours.gin",)))
