"""OBJECTIVE='distill': the loss, whom it is learnt from, and that a run keeps its teacher."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import NO_NOISE, Model, forward_flops
from switchx.planning.plan import settings
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import room, train
from switchx.training.batches import put_batch
from switchx.training.checkpoints.identity import read_identity
from switchx.training.checks import check_run
from switchx.training.config import BatchShape
from switchx.training.freezing import step_flops
from switchx.training.objectives import Pretraining
from switchx.training.objectives.losses import grouped, soft_sums
from switchx.training.placing import bytes_per_device
from switchx.training.run_reader import read_start
from switchx.training.state import Setup, TrainState
from switchx.training.step import gradients
from switchx.training.teacher import ObjectiveConfig, Teacher
from switchx.training.teaching import compile_teacher
from tests.helpers import with_switch
from tests.training.helpers import SMALL, VOCAB, batch, checkpoints_of, feed, run_config

DENSE = {**SMALL, "num_layers": 1}
SPARSE = {**SMALL, "switch": run_config().model.switch, "d_model": 16, "num_layers": 2}


@pytest.fixture(scope="module")
def taught_by(tmp_path_factory):
    """The directory of a wee switch model, which another of other sizes learns from."""
    directory, run = tmp_path_factory.mktemp("teacher"), run_config(**SPARSE)
    setup = Setup.of(run, make_mesh(run.mesh, jax.devices()[:1]))
    state = setup.init()
    first = TrainState(state.step + 1, state.params, state.opt_state)
    with contextlib.closing(checkpoints_of(directory, setup)) as checkpoints:
        checkpoints.save(first, {0: b"1"}, None)
    return directory


def teacher_of(directory, **config):
    named = ObjectiveConfig("distill", str(directory), **config)
    _, seal = read_identity(directory, 1)
    return Teacher(named, run_config(**SPARSE).model, directory, 1, seal)


def setup_of(directory, devices=1, changes=None, **config):
    teacher = {"objective": "distill", "teacher": teacher_of(directory, **config)}
    run = run_config(**{**DENSE, **teacher, **(changes or {})})
    mesh = make_mesh(run.mesh, jax.devices()[:devices])
    check_run(run, mesh)
    return Setup.of(run, mesh)


@functools.cache
def fresh():
    """The student's, on the host."""
    run = run_config(**DENSE)
    return jax.device_get(Setup.of(run, make_mesh(run.mesh, jax.devices()[:1])).init())


def gradients_of(setup, of=None):
    state = jax.device_put(fresh(), setup.shardings)
    with jax.set_mesh(setup.mesh):
        args = (state, setup.constants, put_batch(of or batch(0), setup))
        return jax.device_get(jax.jit(lambda *args: gradients(setup, *args))(*args))


def logits_of(model, params, placed):
    output = Pretraining(model, 0.0, 0.0).output
    return jax.jit(lambda params, placed: output(params, placed, NO_NOISE).logits_BLV)(
        params, placed
    )


def test_the_soft_loss_is_the_definition():
    rng = np.random.default_rng(0)
    own, taught = rng.normal(size=(2, 3, 4, 7)).astype(np.float32) * 3
    weight = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    soft = kl = 0.0
    for at in np.argwhere(weight):
        s, t = (np.exp(x[tuple(at)].astype(np.float64) / 2.5) for x in (own, taught))
        s, t = s / s.sum(), t / t.sum()
        soft, kl = soft - np.sum(t * np.log(s)), kl + np.sum(t * np.log(t / s))
    found = soft_sums(own, taught, weight, 2.5)
    np.testing.assert_allclose([found["soft"], found["teacher_kl"]], [soft, kl], rtol=1e-5)


def test_all_others_are_one_class_even_where_little_is_left_to_them():
    """Float64 and the definition; the first row's eight have all but 1e-12 of the mass."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 1, 40)).astype(np.float32)
    logits[0, 0, :8] += 30
    ids = np.array([[[*range(8)]], [[5, 3, 39, 0, 17, 2, 8, 1]]])
    wanted = [
        np.log(np.sum(np.exp(np.delete(logits[n, 0], ids[n, 0], 0), dtype=np.float64)))
        for n in range(2)
    ]
    found = grouped(logits, ids)
    np.testing.assert_array_equal(found[..., :8], np.take_along_axis(logits, ids, -1))
    np.testing.assert_allclose(found[:, 0, 8], wanted, rtol=1e-5)
    slope = jax.grad(lambda x: grouped(x, ids)[..., 8].sum())(logits)
    np.testing.assert_allclose(slope.sum(-1), 1, rtol=1e-5)  # over the others, none of the eight
    assert not np.take_along_axis(np.asarray(slope), ids, -1).any()
    assert grouped(logits, np.argsort(logits)).shape == (2, 1, 40)


def test_the_objective_mixes_the_two_and_keeps_the_z_loss(taught_by):
    setup = setup_of(taught_by, share=0.3, temperature=2.0)
    params, placed = fresh().params, put_batch(batch(0), setup)
    sums = jax.jit(lambda *args: setup.objective(*args, NO_NOISE).sums)(
        params, setup.constants, placed
    )
    models = (setup.model, params), (Model.of(setup.run.teacher.model), setup.constants)
    own, taught = (logits_of(model, each, placed) for model, each in models)
    soft = soft_sums(own, taught, placed["decoder_loss_weights"], 2.0)["soft"]
    wanted = 0.7 * sums["cross_entropy"] + 0.3 * 4 * soft + sums["z_loss"]
    np.testing.assert_allclose(sums["objective"], wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def of_pretraining(taught_by):
    return gradients_of(setup_of(taught_by, changes={"objective": "pretraining"}))[0]


@pytest.mark.parametrize("config", [{"share": 0.0}, {"start_step": 1}], ids=str)
def test_without_a_share_it_is_pretraining_bit_for_bit(taught_by, of_pretraining, config):
    found = gradients_of(setup_of(taught_by, **config))[0]
    jax.tree.map(np.testing.assert_array_equal, found, of_pretraining)


@pytest.fixture(scope="module")
def on_one_device(taught_by):
    return gradients_of(setup_of(taught_by))


def test_it_is_the_same_on_a_mesh_and_in_microbatches(taught_by, on_one_device):
    """The student is dense: the mesh has an axis that only the teacher's experts use."""
    changes = {"mesh": MeshConfig(1, 2, 2), "microbatches": 2}
    found, outcome = gradients_of(setup_of(taught_by, 4, changes))
    grads, of_one = on_one_device
    assert outcome.sums["teacher_kl"] > 0
    np.testing.assert_allclose(outcome.sums["objective"], of_one.sums["objective"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-4 * np.abs(b).max())


def test_bfloat16_halves_the_teacher_but_for_its_routers(taught_by):
    setup = setup_of(taught_by, dtype="bfloat16")
    leaves = jax.tree_util.tree_leaves_with_path(setup.constants)
    assert {str(x.dtype) for path, x in leaves if "router" in str(path)} == {"float32"}
    assert {str(x.dtype) for path, x in leaves if "router" not in str(path)} == {"bfloat16"}
    abstract = setup.objective.abstract_constants(setup.mesh)
    assert jax.tree.map(lambda x: x.dtype, abstract) == jax.tree.map(
        lambda x: x.dtype, setup.constants
    )


def test_the_teachers_forward_pass_is_counted(taught_by):
    run, alone = setup_of(taught_by).run, run_config(**DENSE)
    assert step_flops(run, Model.of(run.model)) > 1.2 * step_flops(alone, Model.of(alone.model))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 128}, "has a vocabulary of 128 rows, and this model ModelConfig.vocab_"),
        ({"num_decoder_layers": 0}, "is an encoder alone, and this model an encoder-decoder"),
    ],
    ids=["vocabulary", "encoder"],
)
def test_a_teacher_of_another_kind_is_refused(taught_by, changes, says):
    teacher = teacher_of(taught_by)
    other = dataclasses.replace(teacher, model=run_config(**DENSE, **changes).model)
    with pytest.raises(UserError, match=says):
        other.check(run_config(**DENSE).model)
    known = dataclasses.replace(teacher, vocabulary="v1")
    known.check_vocabulary("v1")
    with pytest.raises(UserError, match="another VOCABULARY or other sentinels"):
        known.check_vocabulary("v2")


def test_a_run_that_has_no_room_is_refused_too(monkeypatch):
    setup = Setup.of(run_config(**DENSE), make_mesh(MeshConfig(8)))
    monkeypatch.setattr(room, "device_bytes", lambda: 10**9)
    room.check_room(setup)
    monkeypatch.setattr(room, "device_bytes", lambda: 9000)
    with pytest.raises(UserError, match=r"optimizer's state need .* GB of each device, and one"):
        room.check_room(setup)
    monkeypatch.setattr(room, "device_bytes", lambda: 10**9)
    for field, name in (("batch", "BATCH_SIZE"), ("eval_batch", "EVAL_BATCH_SIZE")):
        large = dataclasses.replace(setup.run, **{field: BatchShape(10**9, 16, 8)})
        with pytest.raises(UserError, match=rf"^{name}=1000000000 needs 20 GB of each device"):
            room.check_room(dataclasses.replace(setup, run=large))


def test_one_that_has_no_room_is_refused_before_anything_is_allocated(taught_by, monkeypatch):
    setup = setup_of(taught_by)
    monkeypatch.setattr(room, "device_bytes", lambda: 10**9)
    room.check_room(setup)
    monkeypatch.setattr(room, "device_bytes", lambda: bytes_per_device(setup.abstract))
    says = r"TEACHER=.* GB of each device .*: TEACHER_DTYPE='bfloat16'"
    with pytest.raises(UserError, match=says):
        room.check_room(setup)
    assert "constants" not in vars(setup)


def read_from(setup, top_k):
    """The same run where the teacher's logits were written by it, and a batch with them."""
    written = compile_teacher(setup, top_k)(batch(0))
    config = dataclasses.replace(setup.run.teacher.config, logits="written", top_k=top_k)
    run = dataclasses.replace(
        setup.run,
        teacher=dataclasses.replace(setup.run.teacher, config=config, model=None),
        batch=dataclasses.replace(setup.run.batch, taught=top_k),
    )
    check_run(run, setup.mesh)
    reader = Setup.of(run, setup.mesh)
    assert reader.constants == {}
    return reader, written


@pytest.mark.parametrize(
    ("devices", "changes"),
    [(1, {}), (4, {"microbatches": 2, "mesh": MeshConfig(2, 1, 2)})],
    ids=["one device", "mesh and microbatches"],
)
def test_all_logits_written_give_what_the_teacher_gives(taught_by, on_one_device, devices, changes):
    """As where it computes, on one device in one part; of 8 tokens the divergence is less."""
    reader, written = read_from(setup_of(taught_by, devices, changes), VOCAB)
    found, outcome = gradients_of(reader, written)
    grads, of_one = on_one_device
    for name in ("objective", "teacher_kl"):
        np.testing.assert_allclose(outcome.sums[name], of_one.sums[name], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-4 * np.abs(b).max())


def test_of_the_likeliest_alone_the_divergence_is_less(taught_by, on_one_device):
    """Merging classes loses some of it, whatever they are; the step has no work of a teacher."""
    reader, written = read_from(setup_of(taught_by), 8)
    _, outcome = gradients_of(reader, written)
    assert 0 < outcome.sums["teacher_kl"] < 0.9 * on_one_device[1].sums["teacher_kl"]
    assert "TEACHER" not in settings(reader.run)  # the plan's
    assert settings(reader.run)["TEACHER_LOGITS"] == "written"
    alone = Model.of(reader.run.model)
    assert step_flops(reader.run, alone) == step_flops(run_config(**DENSE), alone)


def test_tokens_overflow_in_the_groups_of_the_teacher_that_computes(taught_by):
    """Groups of two rows with room for half of the tokens, written in microbatches."""
    sparse = run_config(**SPARSE).model
    tight = with_switch(
        sparse, encoder_group_size=32, decoder_group_size=16, eval_capacity_factor=0.5
    )
    setup = setup_of(taught_by, changes={"microbatches": 2})
    teacher = dataclasses.replace(setup.run.teacher, model=tight)
    online = Setup.of(dataclasses.replace(setup.run, teacher=teacher), setup.mesh)
    written = compile_teacher(online, VOCAB)(batch(0))
    placed = put_batch(batch(0), online)
    found = [logits_of(Model.of(model), online.constants, placed) for model in (tight, sparse)]
    beside, with_room = (
        np.take_along_axis(np.asarray(x), written["teacher_ids"].astype(int), -1) for x in found
    )
    np.testing.assert_allclose(written["teacher_logits"], beside, atol=1e-5)
    assert np.abs(written["teacher_logits"] - with_room).max() > 1e-3


@pytest.mark.usefixtures("one_device")
def test_a_run_keeps_its_teacher_and_goes_on_with_no_other(taught_by, tmp_path):
    run = setup_of(taught_by).run
    two = dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, train_steps=2))
    result = train(two, tmp_path, feed())
    assert result.validation["teacher_kl"] > 0
    saved = read_identity(tmp_path, 2)[0]
    assert saved["teacher"] == run.teacher.record
    own = {name for name in saved["arrays"] if name.startswith("params/")}
    assert len(own) == len(jax.tree.leaves(Model.of(run.model).shapes))  # none of the teacher's
    forward = forward_flops(run.teacher.model, run.batch.input_length, run.batch.target_length)
    assert read_start(tmp_path)["teacher"] == {**run.teacher.record, "forward_flops": forward}
    other = dataclasses.replace(run, teacher=dataclasses.replace(run.teacher, seal="another"))
    with pytest.raises(UserError, match="is not the checkpoint that the run in MODEL_DIR"):
        train(other, tmp_path, feed())
