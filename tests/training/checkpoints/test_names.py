"""Checkpoints lie below any name that a folder can have, or are refused before there is one."""

import os

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.training.checkpoints.best import Best
from switchx.training.checkpoints.identity import checkpoints_of, saved_steps
from switchx.training.checkpoints.manager import open_manager


def open_below(folder):
    return open_manager(
        checkpoints_of(folder), keep=1, extra=(), base_period=None, best=Best("loss")
    )


@pytest.mark.parametrize("name", ["f[1]", "*", "?", "a b", "ä#%41", "x=1,'\"&\n$HOME", "n" * 255])
def test_what_is_saved_can_be_read(tmp_path, name):
    manager = open_below(tmp_path / name)
    manager.save(1, args=ocp.args.Composite(params=ocp.args.StandardSave({"x": jnp.arange(3.0)})))
    manager.wait_until_finished()
    manager.close()
    manager = open_below(tmp_path / name)
    args = ocp.args.Composite(params=ocp.args.StandardRestore({"x": jnp.zeros(3)}))
    assert manager.restore(1, args=args).params["x"].tolist() == [0, 1, 2]
    manager.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a\\b", "gs:/run", os.fsdecode(b"\xff")])
def test_a_name_that_cannot_be(tmp_path, name):
    for use in (open_below, saved_steps):  # whoever trains, and whoever reads
        with pytest.raises(UserError, match=r"MODEL_DIR='.*' has a name that"):
            use(tmp_path / name)
    with pytest.raises(UserError, match="MODEL_DIR='/s3/run' has a name"):
        open_below(type(tmp_path)("/s3/run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\\b", "x:/run", "a/../run"])
def test_a_name_in_a_bucket_that_cannot_be(name):
    with pytest.raises(UserError, match=r"MODEL_DIR='gs://.*' has a name that checkpoints cannot"):
        open_below(storage.as_path(f"gs://bucket/{name}"))
