"""`switchx import --from=t5x`, as a user types it: what training resumes from."""

import jax
import numpy as np
import pytest

from switchx.interop import open_source
from switchx.settings import Request, load
from switchx.sharding import make_mesh
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.state import Setup
from tests.interop.t5x_files import (
    checkpoint_arrays,
    target_arrays,
    unpack_switch_tiny,
    write_checkpoint,
)
from tests.training import helpers

RUN = (
    "--gin.MIXTURE_OR_TASK_NAME=python_docs_span_corruption",
    "--gin.TRAIN_STEPS=12",
    "--gin.DTYPE=float32",
    "--gin.VOCABULARY='bytes'",
    "--gin.BATCH_SIZE=8",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.ENCODER_GROUP_SIZE=32",
    "--gin.DECODER_GROUP_SIZE=16",
)


@pytest.fixture
def source(tmp_path):
    return str(unpack_switch_tiny(tmp_path) / "checkpoint_10")


def imported(command, source, *flags):
    outcome = command("import", "--from=t5x", f"--input={source}", "--model_dir=run", *RUN, *flags)
    assert outcome.status == 0, outcome.err
    return outcome.out


def resumed(model_dir="run"):
    """(setup, state) that `switchx train` goes on from."""
    settings = load(Request((f"{model_dir}/config.gin",)))
    setup = Setup.of(settings.run, make_mesh(settings.run.mesh))
    check_resume(setup.run, model_dir)
    return setup, helpers.restored(model_dir, setup).state


def assert_same(found, expected):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_what_training_resumes_from_is_what_t5x_wrote(command, source):
    said = imported(command, source)
    assert "step 10" in said
    assert "group_padding" not in said
    assert "the optimizer goes on from its state" in said
    setup, state = resumed()
    theirs = open_source("t5x", source)
    assert int(state.step) == 10
    assert_same(state.params, theirs.params(setup.abstract.params))
    assert_same(state.opt_state, theirs.opt_state(setup.abstract.opt_state))
    # Counted from one statistic T5X wrote, not from a fresh one.
    counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32]
    assert {int(c) for count in counts for c in np.ravel(count)} == {10}


def test_groups_that_t5x_fills_up_are_filled_up_and_that_is_said(command, tmp_path):
    """Six experts and 8 x 32 tokens."""
    folder = write_checkpoint(tmp_path / "six", checkpoint_arrays(target_arrays(V=384, E=6)))
    said = imported(command, str(folder), "--gin.MESH_DATA=4", "--gin.MESH_MODEL=2")
    assert "SwitchConfig.group_padding='flaxformer': T5X fills batches of this size up" in said
    setup, state = resumed()
    assert setup.run.model.switch.group_padding == "flaxformer"
    assert_same(state.params, open_source("t5x", str(folder)).params(setup.abstract.params))


def test_another_step_is_that_of_the_schedule_alone(command, source):
    imported(command, source, "--step=0")
    _, state = resumed()
    *adafactor, schedule = (
        set(np.ravel(leaf)) for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32
    )
    assert int(state.step) == 0
    assert schedule == {0}
    assert adafactor == [{10}] * len(adafactor)


def test_another_optimizer_starts_afresh_and_says_so(command, source):
    said = imported(command, source, "--gin.OPTIMIZER='adamw'")
    assert "the optimizer starts afresh" in said


def test_gin_that_names_another_model_is_refused(command, source):
    outcome = command(
        "import",
        "--from=t5x",
        f"--input={source}",
        "--model_dir=run",
        *RUN,
        "--gin.NUM_EXPERTS=8",
    )
    assert outcome.status == 2
    assert "NUM_EXPERTS=8" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_damaged_checkpoint_is_one_line(command, source, tmp_path):
    chunk = tmp_path / "switch_tiny/checkpoint_10/target.decoder.decoder_norm.scale/0"
    chunk.unlink()
    outcome = command("import", "--from=t5x", f"--input={source}", "--model_dir=run", *RUN)
    assert outcome.status == 2
    assert "target/decoder/decoder_norm/scale" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
