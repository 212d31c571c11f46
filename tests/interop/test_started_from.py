"""START_FROM a run that was imported, from a bucket, onto another mesh; and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from switchx import data, storage
from switchx.api.starting import beginning
from switchx.api.teaching import taught
from switchx.errors import UserError
from switchx.interop.new_run import write_run
from switchx.settings import Request, load, read_flag
from switchx.sharding import make_mesh
from switchx.training.adapting import named
from switchx.training.checkpoints import reading
from switchx.training.checkpoints.fingerprints import name as name_of
from switchx.training.start import lines
from switchx.training.state import Setup
from tests.conftest import SMALL

BASE = {"NUM_EXPERTS": 2, "TRAIN_STEPS": 2, "OPTIMIZER": "adamw"}
FILES = {"C4_JSON_TRAIN": "train.jsonl", "C4_JSON_VALIDATION": "validation.jsonl"}


def settings_of(model_dir, **changes):
    asked = [flag.removeprefix("--gin.") for flag in SMALL]
    asked += [f"{name}={value!r}" for name, value in {**BASE, **FILES, **changes}.items()]
    return load(Request(bindings=tuple(map(read_flag, asked)), model_dir=str(model_dir)))


def setup_of(run):
    return Setup.of(run, make_mesh(run.mesh))


def numbers(tree, seed):
    """Of each array in a tree, by its name: random numbers."""
    rng = np.random.default_rng(seed)
    return {
        name_of(path): rng.integers(-99, 99, leaf.shape).astype(leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Imported:
    """A source of such numbers, with an optimizer's state."""

    step, model_fields = 6, {}

    def params(self, abstract):
        return put(abstract, numbers(abstract, 0))

    def opt_state(self, abstract):
        return put(abstract, numbers(abstract, 1))


def put(abstract, values):
    return jax.tree_util.tree_map_with_path(
        lambda path, to: jax.device_put(values[name_of(path)], to.sharding), abstract
    )


def imported(folder, **changes):
    """The directory of a run with a checkpoint of step 6."""
    settings, path = settings_of(folder, **changes), storage.as_path(folder)
    storage.make_directory(path, "MODEL_DIR")
    origin = {"from": "t5x", "path": "somewhere"}
    write_run(settings.run, Imported(), path, settings.resolved, Imported.step, origin)
    return folder


def started(folder, base, **changes):
    """The setup of a run that starts from another, and how it started."""
    begins = beginning(settings_of(folder, START_FROM=str(base), **changes))
    setup = setup_of(begins.run)
    return setup, begins.warm.begin(setup)


def test_more_experts_on_a_mesh_that_those_there_do_not_divide_over(gs, tmp_path):
    """From a bucket, onto fully sharded devices."""
    base = imported(gs.folder())
    more = {"NUM_EXPERTS": 4, "START_CHANGES": ("experts",), "START_NOISE": 0.0}
    mesh = {"MESH_DATA": 2, "MESH_EXPERT": 4, "FULLY_SHARDED": True}
    setup, began = started(tmp_path, base, **more, **mesh)
    before = numbers(setup_of(settings_of(base).run).abstract.params, 0)
    places, found = named(setup.shardings.params), named(began.state.params)
    for name, leaf in found.items():
        axis = 1 if "/experts/" in name else -1 if "/router/" in name else None
        expected = before[name] if axis is None else np.concatenate([before[name]] * 2, axis)
        np.testing.assert_array_equal(leaf, expected, err_msg=name)
        assert leaf.sharding.is_equivalent_to(places[name], leaf.ndim), name
    assert (int(began.state.step), began.record["checkpoint"]) == (0, 6)
    said, changed = lines(began.record)
    assert said == f"{len(found)} parameters taken from there"
    assert changed.startswith("6 of them of another shape there: decoder/blocks/layer_0/feed_for")


@pytest.fixture(scope="module")
def frozen_base(tmp_path_factory):
    """Whose embedding was frozen. Not to be written to."""
    return imported(tmp_path_factory.mktemp("imported"), FREEZE=("embedding",))


def test_the_optimizers_state_of_what_is_trained_is_taken(frozen_base, tmp_path, monkeypatch):
    restored, placed = reading._restored, []

    def noted(folder, item, target, *rest):
        placed.extend(jax.tree.leaves(target))
        return restored(folder, item, target, *rest)

    monkeypatch.setattr(reading, "_restored", noted)
    frozen = {"FREEZE": ("experts", "embedding"), "START_STEP": "continue"}
    setup, began = started(tmp_path, frozen_base, START_OPTIMIZER=True, **frozen)
    there = setup_of(settings_of(tmp_path, FREEZE=("embedding",)).run).abstract.opt_state
    before = numbers(there, 1)
    found = {
        name_of(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(began.state.opt_state)
    }
    assert {name for name in before if "/experts/" not in name} == found.keys() < before.keys()
    for name, leaf in found.items():
        # The schedule goes on at the step that is asked for, whatever its counter said.
        np.testing.assert_array_equal(
            leaf, 6 if name == "[2]/count" else before[name], err_msg=name
        )
    assert (int(began.state.step), setup.run.trainer.train_steps) == (6, 8)
    # An array that lies nowhere in particular would lie on the first of several hosts alone.
    assert all(leaf.sharding.mesh == setup.mesh for leaf in placed)


def test_experts_that_are_all_kept_come_in_the_order_that_is_asked_for(frozen_base, tmp_path):
    setup, began = started(tmp_path, frozen_base, START_EXPERTS=(1, 0))
    before = numbers(setup.abstract.params, 0)
    for name, leaf in named(began.state.params).items():
        axis = 1 if "/experts/" in name else -1 if "/router/" in name else None
        expected = before[name] if axis is None else np.flip(before[name], axis)
        np.testing.assert_array_equal(leaf, expected, err_msg=name)


def test_a_restart_before_the_first_save_begins_with_the_checkpoint_of_before(
    frozen_base, tmp_path
):
    """Whatever was saved there since; where it is gone, that is said."""
    record = {"from": "run", "path": str(frozen_base), "checkpoint": 5}
    (tmp_path / "start.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"^START_CHECKPOINT=5 is not in START_FROM=.*: the check"):
        beginning(settings_of(tmp_path, START_FROM=str(frozen_base)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"START_OPTIMIZER": True}, "FREEZE=('embedding',) and has no optimizer state of embedd"),
        (
            {"START_OPTIMIZER": True, "OPTIMIZER": "adafactor"},
            "was trained with OPTIMIZER='adamw', and this run with 'adafactor'",
        ),
        ({"START_FROM": "./new/"}, "START_FROM='./new/' is of MODEL_DIR itself, which goes on "),
        ({"START_FROM": "new/checkpoints/6"}, "is of MODEL_DIR itself, which goes on from its own"),
        ({"START_FROM": "empty"}, "START_FROM='empty' holds no checkpoint"),
        ({"START_FROM": "half"}, "START_FROM='half' holds no checkpoint"),
        ({"START_FROM": "newer"}, "START_FROM='newer': MODEL_DIR='newer' is of format 99, and"),
        ({"START_FROM": "lost"}, "START_FROM='lost': --model_dir=lost holds no config.gin"),
    ],
)
def test_what_nothing_can_start_from_is_named(frozen_base, changes, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "half/checkpoints/6.orbax-checkpoint-tmp-1", "lost/checkpoints/6"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "newer/checkpoints/6").mkdir(parents=True)
    (tmp_path / "newer/config.gin").touch()
    (tmp_path / "newer/run.json").write_text(json.dumps({"format": 99, "switchx": "9"}))
    with pytest.raises(UserError) as refused:
        beginning(settings_of("new", **{"START_FROM": str(frozen_base), **changes}))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def dense_student(model_dir, base, way):
    """Settings of a model without experts, and otherwise as the one that it starts from."""
    asked = [f"START_FROM='{base}'", f"START_FEED_FORWARDS={way!r}", "ModelConfig.switch=None"]
    asked += ["FULLY_SHARDED=True", "TRAIN_STEPS=2"]
    files, bindings = (str(base / "config.gin"),), tuple(map(read_flag, asked))
    return load(Request(gin_files=files, bindings=bindings, model_dir=str(model_dir)))


@pytest.mark.parametrize("way", ["most_used", "mean"])
def test_a_dense_student_begins_with_its_teacher(frozen_base, tmp_path, way):
    """Fully sharded; the load is that of the rows up to the checkpoint."""
    base = tmp_path / "base"
    base.mkdir()
    for part in frozen_base.iterdir():
        (base / part.name).symlink_to(part)
    loads = {4: [0.9, 0.1], 6: [0.2, 0.8], 8: [0.9, 0.1]}
    rows = [{"step": n, "split": "train", "load": [own, own[::-1]]} for n, own in loads.items()]
    (base / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    begins = beginning(dense_student(tmp_path / "new", base, way))
    setup = setup_of(begins.run)
    begins.warm.check(begins.run)
    began = begins.warm.begin(setup)
    before = numbers(setup_of(settings_of(base).run).abstract.params, 0)
    found = named(began.state.params)
    for stack, expert in (("encoder", 1), ("decoder", 0)):
        of_layer = f"{stack}/blocks/layer_0/feed_forward/switch/experts"
        wi_EDF = before[f"{of_layer}/wi_EDF"][0]
        expected = wi_EDF[expert] if way == "most_used" else (wi_EDF[0] + wi_EDF[1]) / 2
        wi_NDF = found[f"{stack}/blocks/layer_0/feed_forward/dense/wi_DF"]
        np.testing.assert_array_equal(wi_NDF[1], expected)
    assert began.record["fresh"] == []
    said = {"mean": "'mean': encoder 0", "most_used": "'most_used': expert 1 of encoder 0, exp"}
    assert f"2 feed-forwards made of experts, {said[way]}" in " ".join(lines(began.record))
    assert all(leaf.sharding.mesh == setup.mesh for leaf in found.values())


def test_the_load_of_an_import_is_measured_where_it_can_be(frozen_base, tmp_path, monkeypatch):
    """By this run's validation split, on one host alone; there is no record of it."""
    begins = beginning(dense_student(tmp_path, frozen_base, "most_used"))
    begins.warm.check(begins.run)
    rng = np.random.default_rng(0)
    batch = {
        "encoder_input_tokens": rng.integers(1, 9, (8, 64), np.int32),
        "decoder_input_tokens": rng.integers(1, 9, (8, 32), np.int32),
        "decoder_target_tokens": rng.integers(1, 9, (8, 32), np.int32),
        "decoder_loss_weights": np.ones((8, 32), np.float32),
    }
    monkeypatch.setattr(data, "eval_batches", lambda config: iter([batch]))
    load = begins.warm.load
    assert load.keys() == {"encoder 0", "decoder 0"}
    assert all(np.isclose(load_E.sum(), 1.0) for load_E in load.values())
    on_hosts = dataclasses.replace(begins.warm, measure=None)
    with pytest.raises(UserError, match="START_FEED_FORWARDS='most_used' needs how much each"):
        on_hosts.check(begins.run)


def test_an_import_teaches_those_of_the_vocabulary_that_it_was_given(frozen_base, tmp_path):
    """Its checkpoint names none, its configuration does."""
    asked = {"OBJECTIVE": "distill", "TEACHER": str(frozen_base)}
    learns = settings_of(tmp_path / "new", **asked)
    teacher = taught(learns).teacher
    teacher.check_vocabulary(data.vocabulary_digest(learns.data))
    other = settings_of(tmp_path / "new", **asked, VOCABULARY="python_docs")
    with pytest.raises(UserError, match="was trained with another VOCABULARY or other sentinels"):
        teacher.check_vocabulary(data.vocabulary_digest(other.data))
