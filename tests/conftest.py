"""Settings that must be in the environment before anything imports JAX; a run to share."""

import contextlib
import fcntl
import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from object_stores import ObjectStore

    from tests.helpers import Trained

# Eight CPU devices, so that every mesh is tested on any machine, with or without accelerators.
DEVICES = "--xla_force_host_platform_device_count=8"
# What is small and runs once is better compiled fast than well: a quarter of the time, and XLA's
# programs are the same down to the loops of each operation. On two cores, several workers gain
# nothing by each compiling in parts. test_end_to_end runs `switchx` without these, as users do.
QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
)
os.environ["JAX_PLATFORMS"] = os.environ.get("SWITCHX_TEST_PLATFORM", "cpu")  # scripts/on_gpu.sh
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] += f" {QUICKLY}"

# What one run of the suite compiled, the next one (and every worker and subprocess) reads.
_cache_root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_root / "switchx" / "test-xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Where in Python an operation is from is not looked up for each: no test asks.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

gc.set_threshold(50_000)  # as commands do: a test traces and imports more than it computes

# Of several processes each or many seconds a test: at the end one worker would wait for them.
FIRST = ("tests/training/test_many_hosts.py", "tests/training/test_kills.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


MORE = 3e9  # bytes


@pytest.fixture(scope="module", autouse=True)
def _room() -> Iterator[None]:
    """What was there before a module is not looked through for garbage: that takes a second, as
    often as a test asks for it. Behind one what was compiled is dropped, where it has come to much:
    a worker that keeps all that the suite compiles ends with 10 GB."""
    gc.freeze()
    yield
    global _after_last
    if "jax" in sys.modules and _resident() > _after_last + MORE:
        gc.unfreeze()
        sys.modules["jax"].clear_caches()
        gc.collect()
        _after_last = _resident()


def _resident() -> int:
    """Bytes that this process has in memory, where Linux says it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


_after_last = _resident()

SMALL = (
    "--gin.VOCABULARY=bytes",
    "--gin.MIXTURE_OR_TASK_NAME=c4_json_span_corruption",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
    "--gin.ENCODER_GROUP_SIZE=64",
    "--gin.DECODER_GROUP_SIZE=32",
    "--gin.ModelConfig.vocab_size=384",
    "--gin.ModelConfig.d_model=32",
    "--gin.ModelConfig.d_ff=32",
    "--gin.ModelConfig.num_layers=1",
    "--gin.SwitchConfig.every=1",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_STEPS=2",
    "--gin.LOG_PERIOD=1",
    "--gin.EVAL_PERIOD=2",
    "--gin.CHECKPOINT_PERIOD=2",
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """Four steps of a tiny model on bytes of JSON lines, on all devices. Not to be written to.

    Of several workers the first trains it, for all.
    """
    from tests.helpers import Outcome, Trained

    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = shared / "outcome.json"
        if not outcome.exists():
            outcome.write_text(json.dumps(_train(shared / "folder")))
    return Trained(shared / "folder", Outcome(*json.loads(outcome.read_text())))


def _train(folder: Path) -> tuple[int, str, str]:
    """Exit status and what was shown."""
    from switchx.cli.main import main

    folder.mkdir()
    for split, rows in (("train", 200), ("validation", 40)):
        lines = [
            {"text": f"line {n} says that {n * 7} is seven times {n}, " * 4} for n in range(rows)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = [f"--gin.C4_JSON_{s.upper()}={folder}/{s}.jsonl" for s in ("train", "validation")]
    with _devices(None), _inside(folder), _shown() as (out, err):
        status = main(
            ["train", "--gin.TRAIN_STEPS=4", "--model_dir=runs/quickstart", *SMALL, *files]
        )
    return status, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _devices(count: int | None) -> Iterator[None]:
    """JAX shows so many of its devices alone, or all."""
    import jax

    devices = jax.local_devices()[:count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices)
        patch.setattr(jax, "device_count", lambda *_: len(devices))
        yield


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """JAX shows one device alone, on which everything starts fastest."""
    with _devices(1):
        yield


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _shown() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


@pytest.fixture(scope="session")
def gs_server() -> "Iterator[ObjectStore]":
    """A server of gs://, for `gs` and for fixtures that outlive a test."""
    import object_stores

    with object_stores.gs() as store:
        yield store


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[ObjectStore]":
    """A server of s3://, as `gs_server`."""
    import object_stores

    with object_stores.s3() as store:
        yield store


@pytest.fixture
def gs(gs_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "Iterator[ObjectStore]":
    """The server of gs://, without faults, in the environment; `folder()` is a new place in it."""
    yield from _in_use(gs_server, monkeypatch)


@pytest.fixture(params=["gs", "s3"])
def store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[ObjectStore]":
    """As `gs`, once for each kind of object store."""
    yield from _in_use(request.getfixturevalue(f"{request.param}_server"), monkeypatch)


def _in_use(server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "Iterator[ObjectStore]":
    import gcsfs
    import s3fs

    from switchx import storage

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # A client that was made before knows neither the server nor its keys.
    for client in (gcsfs.GCSFileSystem, s3fs.S3FileSystem):
        client.clear_instance_cache()
    storage.paths._shared.cache_clear()
    server.reset()
    yield server
    server.reset()
