"""Checkpoints at gs:// and s3://, against servers that speak their HTTP."""

import asyncio
import contextlib
import dataclasses
import itertools
import time
import types
import urllib.parse

import gcsfs.retry
import jax
import numpy as np
import object_stores
import pytest

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.sharding import MeshConfig, make_mesh
from switchx.storage import retries
from switchx.storage.paths import file_system
from switchx.training.checkpoints import History, restore_params, run_path
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.state import Setup
from tests.training.helpers import SMALL, checkpoints_of, restored, run_config

# What a failed save or restore leaves unfinished is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
ODD = "a b [1]/é#1?x%41"


def setup_of(mesh, **changes):
    run = run_config(**{**SMALL, "mesh": mesh, "keep_checkpoints": 2, **changes})
    return Setup.of(run, make_mesh(run.mesh, jax.devices()[: mesh.data * mesh.expert * mesh.model]))


@pytest.fixture(scope="module")
def setup():
    return setup_of(MeshConfig(1, 1, 1))


@pytest.fixture(scope="module")
def states(setup, tmp_path_factory):
    """What a run has after steps 0, 1, 2, 3: other numbers in each."""
    state = restored(tmp_path_factory.mktemp("start"), setup).state
    change = jax.jit(lambda tree, n: jax.tree.map(lambda x: x + n.astype(x.dtype), tree))
    return [
        dataclasses.replace(
            state, step=state.step + n, params=change(state.params, jax.numpy.float32(n))
        )
        for n in range(4)
    ]


@pytest.fixture(scope="module")
def of_two(setup, states, tmp_path_factory):
    """The files of a run on this machine that saved the first two."""
    folder = tmp_path_factory.mktemp("two")
    save(folder, setup, states[:2])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pauses between tries, of ours, TensorStore's and gcsfs's."""

    async def sleep(seconds):
        await asyncio.sleep(seconds / 1000)

    fast = {"max_retries": 8, "initial_delay": "1ms", "max_delay": "8ms"}
    monkeypatch.setattr(run_path, "_RETRIES", fast)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=sleep))


def save(directory, setup, states, losses=()):
    """Each as of its step, with a validation loss where there is one."""
    with contextlib.closing(checkpoints_of(directory, setup)) as checkpoints:
        for state, loss in itertools.zip_longest(states, losses):
            step = int(state.step)
            position = {0: b"position %d" % step}
            found = None if loss is None else {"loss": loss}
            checkpoints.save(state, position, found, History(step, (step / 7,)))
            checkpoints.wait()


def assert_is(found, state):
    """Bitwise, with its position and history."""
    step = int(state.step)
    assert found.positions == {0: b"position %d" % step}
    assert found.history == History(step, (step / 7,))
    pairs = zip(jax.tree.leaves(found.state), jax.tree.leaves(state), strict=True)
    assert all(np.asarray(ours).tobytes() == np.asarray(saved).tobytes() for ours, saved in pairs)


def objects(root):
    """Everything below a URL, by name."""
    system, folder = file_system(root)
    return {name.removeprefix(f"{folder}/"): system.cat_file(name) for name in system.find(folder)}


def upload(content, root):
    for name, data in content.items():
        storage.write_whole(f"{root}/{name}", data)


def test_what_was_saved_is_restored_on_any_mesh_and_what_is_old_goes(store, setup, states):
    """Below a name that is a pattern and no URL, beside others that it would match."""
    root, beside = f"{store.folder()}/{ODD}", f"{store.folder()}/a b 1/é#1_x%41/checkpoints/1/x"
    storage.write_whole(beside, "stays")
    save(root, setup, states, [1.0, 2.0, 3.0])
    assert saved_steps(root) == [0, 2, 3]  # the best and the newest two
    assert storage.names_in(f"{root}/checkpoints", "X") == {"0", "2", "3"}
    assert_is(restored(root, setup), states[3])
    assert_is(restored(root, setup_of(MeshConfig(2, 1, 2))), states[3])
    params, step = restore_params(setup.model, root, setup.mesh)
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, params, states[3].params)
    assert storage.read_bytes(beside, "X") == b"stays"


def test_a_few_requests_are_enough(store, setup, states):
    """Fewer than arrays, but for the times that TensorStore writes its index.

    How often it reads that again goes by how its reads fall in time: 37 to 51 requests were seen.
    """
    root, counted = store.folder(), []
    for work in (
        lambda: save(root, setup, states[:1]),
        lambda: save(root, setup, states[1:2]),
        lambda: restored(root, setup),
    ):
        store.reset()
        work()
        counted.append(sum(n for key, n in store.requests.items() if isinstance(key, str)))
    assert max(counted) < 80 < len(jax.tree.leaves(states[0])), counted


def wait_until_quiet(store):
    """Until no request came for half a second."""
    before = -1
    while (now := store.requests.total()) != before:
        before = now
        time.sleep(0.5)


@pytest.mark.parametrize("moment", range(2, 65, 12))
def test_killed_at_any_moment_of_a_save(gs, setup, states, of_two, moment):
    """So many changes of objects arrive of what a process does, and none of the later ones."""
    root, changes = gs.folder(), itertools.count(1)
    upload(of_two, root)

    def choose(method, path):
        dead = next(changes) > moment if method in ("POST", "DELETE") else False
        return 403 if dead else None

    gs.choose = choose
    with contextlib.suppress(RunError):
        save(root, setup, states[2:3])
    wait_until_quiet(gs)  # a process that is dead sends nothing more
    gs.reset()
    steps = saved_steps(root)
    assert steps in ([0, 1], [0, 1, 2], [1, 2])
    assert_is(restored(root, setup), states[steps[-1]])
    assert storage.names_in(f"{root}/checkpoints", "X") == set(map(str, steps))


def test_damage_to_an_object_is_noticed(gs, setup, states, capfd):
    """What comes back is right, or the one before; what is damaged lies beside the others."""
    root, counts = gs.folder(), {1: 0, 2: 0}
    save(root, setup, states[1:3])
    whole = {n: c for n, c in objects(root).items() if n.startswith("checkpoints/2/")}
    kinds = (
        "params/manifest.ocdbt",
        "optimizer/d/",
        "params/ocdbt.process_0/d/",
        "metadata",
        "shard",
    )
    for number, kind in enumerate((*kinds, "_sharding", "_CHECKPOINT")):
        name = max((name for name in whole if kind in name), key=lambda name: len(whole[name]))
        at = len(whole[name]) // 2
        flipped = whole[name][:at] + bytes([whole[name][at] ^ 4]) + whole[name][at + 1 :]
        if number % 2:
            storage.write_whole(f"{root}/{name}", flipped)
        else:
            storage.remove(f"{root}/{name}")
        found = restored(root, setup)
        assert_is(found, states[found.step])
        counts[found.step] += 1
        aside = storage.names_in(f"{root}/damaged", "X")
        assert len(aside) == counts[1]
        upload(whole if found.step == 1 else {name: whole[name]}, root)
    assert "checkpoint of step 2 cannot be read" in capfd.readouterr().err
    assert counts[1] >= 4, counts
    assert {name.split("-")[0] for name in aside} == {"2"}


def test_a_run_is_copied_to_a_bucket_and_back(store, setup, states, of_two, tmp_path):
    root = store.folder()
    upload(of_two, root)
    assert_is(restored(root, setup), states[1])
    save(root, setup, states[2:3])
    for name, content in objects(root).items():
        path = tmp_path / "back" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert_is(restored(tmp_path / "back", setup), states[2])


def test_a_rollback_deletes_what_lies_behind_it(gs, states):
    setup = setup_of(
        MeshConfig(1, 1, 1), on_bad_loss="skip", checkpoint_period=2, keep_checkpoints=9
    )
    root = gs.folder()
    save(root, setup, states[1:])
    with contextlib.closing(checkpoints_of(root, setup)) as checkpoints:
        assert_is(checkpoints.base_or_start(), states[2])
    assert saved_steps(root) == [1, 2]


def test_faults_of_every_kind_change_nothing(store, setup, states):
    """A tenth of all requests."""
    store.choose = object_stores.at_random(0.1, seed=1)
    root = store.folder()
    save(root, setup, states[:3])
    assert_is(restored(root, setup), states[2])
    assert saved_steps(root) == [1, 2]


def test_a_store_that_does_not_answer_damages_nothing(store, setup, states, monkeypatch):
    root = store.folder()
    save(root, setup, states[:2])
    monkeypatch.setitem(run_path._RETRIES, "max_retries", 2)

    def refuse(status):
        def choose(method, path):
            of_arrays = "/params/" in urllib.parse.unquote(path) and "manifest" in path
            return status if of_arrays else None

        return choose

    for status, words in ((403, "permission denied"), (503, r"2 retry attempts failed.*503")):
        store.choose = refuse(status)
        with pytest.raises(UserError, match=rf"MODEL_DIR leads to .*checkpoints/1.*{words}"):
            restored(root, setup)
        with pytest.raises(RunError, match=f"could not be saved.*{words}.*of steps: 0, 1"):
            save(root, setup, states[2:3])
        store.reset()
        assert_is(restored(root, setup), states[1])
    assert "damaged" not in storage.names_in(root, "X")
