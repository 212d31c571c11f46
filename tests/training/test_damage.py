"""Every file of a checkpoint damaged in every way: the right state comes back, or an older one."""

import contextlib
import gc
import itertools
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from switchx.errors import RunError
from switchx.model import Model
from switchx.sharding import make_mesh
from switchx.training.checkpoints import History, restore_params
from switchx.training.state import Setup, TrainState
from tests.training.helpers import SMALL, checkpoints_of, run_config

# An encoder of dense layers has the same kinds of files and fewer arrays; Muon, one moment of a
# matrix.
ONE = {**SMALL, "num_decoder_layers": 0, "name": "muon", "learning_rate": 0.01}

# What a failed restore leaves unfinished is not ours.
pytestmark = [
    pytest.mark.usefixtures("one_device"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def save(directory, seed):
    """Checkpoints of steps 2 and 4, in no array the same, as a run of this seed has them."""
    run = run_config(**ONE, seed=seed)
    setup = Setup.of(run, make_mesh(run.mesh))
    rng = np.random.default_rng(seed)

    def random(leaf):
        whole = np.issubdtype(leaf.dtype, np.integer)
        drawn = rng.integers(9, size=leaf.shape) if whole else rng.standard_normal(leaf.shape)
        return drawn.astype(leaf.dtype)

    with contextlib.closing(checkpoints_of(directory, setup)) as checkpoints:
        for step in (2, 4):
            drawn = jax.tree.map(random, setup.abstract)
            state = TrainState(np.int32(step), drawn.params, drawn.opt_state)
            placed = jax.device_put(state, setup.shardings)
            checkpoints.save(placed, {0: b"%d" % step}, {"loss": 1.0}, History(step, (step / 7,)))
            checkpoints.wait()
    return directory


@pytest.fixture(scope="module")
def run_of_four(tmp_path_factory, one_device):
    return save(tmp_path_factory.mktemp("run"), 0)


@pytest.fixture(scope="module")
def another_run(tmp_path_factory, one_device):
    """The same of another seed: no array in it is the same."""
    return save(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture(scope="module")
def setup(one_device):
    run = run_config(**ONE)
    return Setup.of(run, make_mesh(run.mesh))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """What failed restores leave is collected here, where its complaints are ignored.

    And nothing else is looked through each time: other tests left millions of objects.
    """
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


def restored(directory, setup):
    """The newest readable checkpoint as plain values, as a new process would find it."""
    with contextlib.closing(checkpoints_of(directory, setup)) as checkpoints:
        found = checkpoints.newest_or_start()
    return jax.tree.leaves(jax.device_get(found.state)), found.positions, found.history


def same(ours, theirs):
    arrays = all(a.tobytes() == b.tobytes() for a, b in zip(ours[0], theirs[0], strict=True))
    return arrays and ours[1:] == theirs[1:]


def flipped(content, place):
    """With one bit of the byte at a share of the length turned over."""
    at = min(int(len(content) * place), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def damages(path, other):
    """(what was done, content or None to delete) for a file."""
    content = path.read_bytes()
    yield "deleted", None
    yield "emptied", b""
    yield "halved", content[: len(content) // 2]
    yield "garbage", np.random.default_rng(0).bytes(len(content))
    yield "another run's", other
    for place in (0.0, 0.3, 0.6, 0.97, 1.0):
        yield f"bit flipped at {place}", flipped(content, place) if content else b"x"


def counterpart(file, folder, other):
    """The other run's file of that name; of data files, whose names are random, one as large."""
    same_name = other / file.relative_to(folder)
    if same_name.exists():
        return same_name
    size = file.stat().st_size
    kind = other / file.parent.relative_to(folder)
    return min(kind.iterdir(), key=lambda path: abs(path.stat().st_size - size))


def test_no_damage_to_any_file_gives_a_wrong_state(
    run_of_four, another_run, setup, tmp_path, capfd
):
    """Half of the damages to each file, the other half to the next: a restore takes its time."""
    newest = run_of_four / "checkpoints" / "4"
    right = restored(run_of_four, setup)
    shutil.copytree(run_of_four / "checkpoints" / "2", tmp_path / "checkpoints" / "2")
    older = restored(tmp_path, setup)
    assert not same(right, older)
    counts = {"right": 0, "older": 0}
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    for number, file in enumerate(files):
        whole = file.read_bytes()
        other = counterpart(file, newest, another_run / "checkpoints" / "4").read_bytes()
        for what, content in itertools.islice(damages(file, other), number % 2, None, 2):
            file.unlink() if content is None else file.write_bytes(content)
            case = f"{file.relative_to(newest)} {what}"
            capfd.readouterr()
            found = restored(run_of_four, setup)
            said = capfd.readouterr().err
            for aside in (run_of_four / "damaged").glob("4-*"):
                aside.rename(newest)
            file.write_bytes(whole)
            if same(found, right):
                counts["right"] += 1
                assert said == "", case
            else:
                counts["older"] += 1
                assert same(found, older), case
                assert "checkpoint of step 4 cannot be read" in said, case
        gc.collect()
    with capfd.disabled():
        print(f"\n{sum(counts.values())} damages: {counts}")
    assert min(counts.values()) > 20


def test_a_bit_of_an_array_is_missed_neither_with_the_optimizer_nor_without(
    run_of_four, setup, tmp_path
):
    """The array is written again, changed, by Orbax itself: no layer below can notice."""
    shutil.copytree(run_of_four, tmp_path, dirs_exist_ok=True)
    run = setup.run
    params, _ = restore_params(setup.model, tmp_path, setup.mesh, 4)
    changed = jax.device_get(params)
    norm = changed["encoder_norm"]["scale_D"].copy()
    norm.view(np.uint32)[7] ^= 1
    changed["encoder_norm"]["scale_D"] = norm
    folder = tmp_path / "checkpoints" / "4" / "params"
    shutil.rmtree(folder)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, changed)
    with pytest.raises(RunError, match=r"step 4 .*damaged \(params/encoder_norm/scale_D is not"):
        restore_params(Model.of(run.model), tmp_path, setup.mesh)
    older = restored(tmp_path, setup)
    shutil.rmtree(tmp_path / "checkpoints" / "4", ignore_errors=True)
    assert same(older, restored(tmp_path, setup))
    assert [path.name[:2] for path in (tmp_path / "damaged").iterdir()] == ["4-"]


def test_a_checkpoint_under_another_step_is_damaged(run_of_four, setup, tmp_path, capfd):
    shutil.copytree(run_of_four / "checkpoints" / "2", tmp_path / "checkpoints" / "2")
    shutil.copytree(run_of_four / "checkpoints" / "2", tmp_path / "checkpoints" / "9")
    restored(tmp_path, setup)
    assert "checkpoint of step 9 cannot be read (it is of step 2)" in capfd.readouterr().err


def test_the_position_of_another_step_is_not_taken(run_of_four, setup, tmp_path, capfd):
    shutil.copytree(run_of_four / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / "4" / "position")
    shutil.copytree(
        tmp_path / "checkpoints" / "2" / "position", tmp_path / "checkpoints" / "4" / "position"
    )
    _, positions, history = restored(tmp_path, setup)
    assert history.batches == 2
    assert positions == restored(tmp_path, setup)[1]
    assert "position/shard-00000-of-00001 is not what was saved" in capfd.readouterr().err
