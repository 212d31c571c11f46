"""switchx convert-gin, and what commands say of T5X's files."""

from switchx.settings import Request, load
from tests.settings.t5x.test_reading import PRETRAIN


def test_the_command(command, tmp_path):
    (tmp_path / "their.gin").write_text(PRETRAIN)
    done = command("convert-gin", "their.gin", "--output=new/ours.gin", "--gin.BATCH_SIZE=32")
    assert (done.status, done.err) == (0, "")
    assert "the loss is the mean over target tokens" in done.out
    assert load(Request(("new/ours.gin",))).data.batch_size == 32
    again = command("convert-gin", "their.gin", "--output=new/ours.gin")
    assert (again.status, again.out) == (2, "")
    assert "new/ours.gin" in again.err
    for flag in ("BATCH_SIZE=-1", "LEARNING_RATE=1e999"):
        refused = command("convert-gin", "their.gin", "--output=none.gin", f"--gin.{flag}")
        assert (refused.status, (tmp_path / "none.gin").exists()) == (2, False)
        assert f"{flag.split('=')[0]}=" in refused.err
    (tmp_path / "their.gin").write_text(PRETRAIN + "train/utils.DatasetConfig.split = 'x'\n")
    refused = command("convert-gin", "their.gin", "--output=none.gin")
    assert (refused.status, (tmp_path / "none.gin").exists()) == (2, False)


def test_what_is_left_to_be_set_is_in_the_command(command, tmp_path):
    (tmp_path / "their.gin").write_text(PRETRAIN.replace("DROPOUT_RATE = 0.1\n", ""))
    done = command("convert-gin", "their.gin", "--output=our own.gin")
    assert "`switchx train --gin_file='our own.gin' --gin.DROPOUT_RATE=VALUE` runs it." in done.out


def test_a_command_shows_what_it_reads(command, tmp_path):
    (tmp_path / "their.gin").write_text(PRETRAIN)
    done = command("info", "--gin_file=their.gin", "--json")
    assert done.status == 0
    assert done.out.startswith("{")
    assert "switchx:   TRAIN_STEPS = 3000" in done.err
    assert "switchx: and beside them:" in done.err
