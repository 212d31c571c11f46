"""Whom OBJECTIVE='distill' learns from, as the settings of a run name it."""

import json

import jax
import numpy as np
import pytest

from switchx import Run, storage
from switchx.api.teaching import taught
from switchx.errors import UserError
from switchx.settings import Request, load, read_flag
from switchx.sharding import make_mesh
from switchx.training.state import Setup
from tests.conftest import SMALL


def learning(model_dir, teacher, **more):
    """What a run in a directory is, with its teacher."""
    asked = [flag.removeprefix("--gin.") for flag in SMALL]
    more = {"OBJECTIVE": "distill", "TEACHER": str(teacher), "TRAIN_STEPS": 1, **more}
    asked += [f"{name}={value!r}" for name, value in more.items()]
    return taught(load(Request(bindings=tuple(map(read_flag, asked)), model_dir=str(model_dir))))


def test_a_restart_before_the_first_save_learns_from_the_same_checkpoint(trained, tmp_path):
    """Whatever that run has saved since, unless another is named; what is gone is named."""
    assert learning(tmp_path, trained.run).teacher.step == 4

    def begun_with(step):
        record = {"from": "fresh", "teacher": {"path": str(trained.run), "step": step, "seal": ""}}
        (tmp_path / "start.json").write_text(json.dumps(record))

    begun_with(2)
    assert learning(tmp_path, trained.run).teacher.step == 2
    assert learning(tmp_path, trained.run, TEACHER_CHECKPOINT=4).teacher.step == 4
    assert learning(tmp_path, f"{trained.run}/checkpoints/4").teacher.step == 4
    with pytest.raises(UserError, match=r"^TEACHER_CHECKPOINT=2 is another than TEACHER=.*/4' nam"):
        learning(tmp_path, f"{trained.run}/checkpoints/4", TEACHER_CHECKPOINT=2)
    begun_with(3)
    with pytest.raises(UserError, match=r"^TEACHER_CHECKPOINT=3 is not in TEACHER=.* are 2, 4\.$"):
        learning(tmp_path, trained.run)


def test_a_teacher_in_a_bucket_is_split_as_the_student_is(trained, gs, tmp_path):
    place = gs.folder()
    for path in sorted(trained.run.rglob("*")):
        if path.is_file() and "tensorboard" not in path.parts:
            to = storage.as_path(place) / path.relative_to(trained.run)
            storage.write_whole(to, path.read_bytes())
    for step in (2, 4):  # as a run that saves there ends each checkpoint
        storage.write_whole(storage.as_path(place) / f"checkpoints/{step}/commit_success.txt", "")
    run = learning(tmp_path, place, FULLY_SHARDED=True, MESH_EXPERT=2)
    setup = Setup.of(run, make_mesh(run.mesh))
    here = Run(trained.run, step=4).params
    jax.tree.map(np.testing.assert_array_equal, setup.constants, here)
    wi = setup.constants["encoder"]["blocks"]["layer_0"]["feed_forward"]["switch"]["experts"]
    split = {axis for axis in jax.tree.leaves(wi)[0].sharding.spec if axis}
    assert split >= {"expert", "data"}
