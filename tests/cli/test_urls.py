"""The commands with paths in buckets: what they do on this machine, they do there."""

import json
import subprocess
import sys

import pytest

from switchx import Run, storage
from switchx.planning import saved
from tests.interop.t5x_files import checkpoint_arrays, target_arrays, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_device")

ODD = "a b/ü#50%41 [1]"
LINES = "".join(f"{json.dumps({'text': f'line {n} says that __ is seven'})}\n" for n in range(3))
RUN = (
    "--gin.MIXTURE_OR_TASK_NAME=python_docs_span_corruption",
    "--gin.TRAIN_STEPS=12",
    "--gin.VOCABULARY='bytes'",
)


def upload(folder, url):
    """Copies a run as people do, what says that a checkpoint is whole behind the rest."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == "commit_success.txt", path)):
        name = path.relative_to(folder).as_posix()
        storage.write_whole(f"{url}/{name}", path.read_bytes())
    return url


def files(url):
    """All files below a folder and their bytes."""
    found = {}
    for name in storage.names_in(url, "X"):
        if storage.is_file(f"{url}/{name}", "X"):
            found[name] = storage.read_bytes(f"{url}/{name}", "X")
        else:
            found |= {f"{name}/{inner}": c for inner, c in files(f"{url}/{name}").items()}
    return found


def params(run):
    """The fingerprints of the parameters in a run's newest checkpoint."""
    step = max(storage.names_in(f"{run}/checkpoints", "X"), key=int)
    identity = json.loads(storage.read_bytes(f"{run}/checkpoints/{step}/identity/metadata", "X"))
    return {name: x for name, x in identity["arrays"].items() if name.startswith("params/")}


@pytest.fixture
def run(trained, gs):
    """The shared run, in a bucket."""
    return upload(trained.run, f"{gs.folder()}/{ODD}")


@pytest.fixture
def requests(gs):
    """How many requests a call makes, and what it gives."""

    def count(call, *argv):
        gs.requests.clear()
        outcome = call(*argv)
        assert outcome.status == 0, outcome.err
        return sum(n for key, n in gs.requests.items() if isinstance(key, str)), outcome.out

    return count


def test_a_run_in_a_bucket_is_described_measured_and_asked(command, run, trained, requests):
    local = f"--model_dir={trained.run}"
    found, said = requests(command, "info", f"--model_dir={run}")
    assert said == command("info", local).out
    assert found <= 6
    found, said = requests(command, "eval", f"--model_dir={run}")
    assert said == command("eval", local).out
    assert found <= 60
    assert Run(run).metrics == Run(trained.run).metrics


def test_answers_go_from_bucket_to_bucket(command, run, trained, gs):
    folder = f"{gs.folder()}/{ODD}"
    storage.write_whole(f"{folder}/in.jsonl", LINES)
    given = (f"--input={folder}/in.jsonl", "--max_length=6", f"--output={folder}/out.jsonl")
    outcome = command("infer", f"--model_dir={run}", *given)
    assert outcome.status == 0, outcome.err
    expected = command("infer", f"--model_dir={trained.run}", *given[:2]).out
    assert storage.read_text(f"{folder}/out.jsonl", "X") == expected
    assert storage.names_in(folder, "X") == {"in.jsonl", "out.jsonl"}
    again = command("infer", f"--model_dir={run}", *given)
    assert again.status == 2
    assert "out.jsonl' exists already: give the name of a new one" in again.err


def test_an_export_and_an_import_of_it(command, run, trained, gs, tmp_path):
    there = f"{gs.folder()}/{ODD}"
    flags = ("export", "--to=hf", "--max_shard_size=30KB")
    outcome = command(*flags, f"--model_dir={run}", f"--output={there}")
    assert outcome.status == 0, outcome.err
    content = files(there)
    assert command(*flags, f"--model_dir={trained.run}", "--output=here").status == 0
    assert content == files(tmp_path / "here")
    assert "exists already" in command(*flags, f"--model_dir={run}", f"--output={there}").err

    made = f"{gs.folder()}/{ODD}/imported"
    outcome = command("import", "--from=hf", *RUN, f"--input={there}", f"--model_dir={made}")
    assert outcome.status == 0, outcome.err
    assert params(made) == params(trained.run)
    assert ".unfinished" not in storage.names_in(made, "X")


def test_t5x_and_upcycling_in_buckets(command, gs, tmp_path):
    """The checkpoint's arrays are read by TensorStore, from the bucket itself."""
    write_checkpoint(tmp_path / "t5x", checkpoint_arrays(target_arrays(sparse=(), V=360, L=1)))
    source = upload(tmp_path / "t5x", f"{gs.folder()}/{ODD}/checkpoint_10")
    dense, sparse = (f"{gs.folder()}/{name}" for name in ("dense", "sparse"))
    for place, at in ((source, dense), (tmp_path / "t5x", tmp_path / "dense")):
        made = command("import", "--from=t5x", f"--input={place}", f"--model_dir={at}", *RUN)
        assert made.status == 0, made.err
    assert params(dense) == params(tmp_path / "dense")
    flags = ("--gin.NUM_EXPERTS=4", "--gin.SwitchConfig.every=1")
    made = command("upcycle", f"--from_dir={dense}", f"--model_dir={sparse}", *flags)
    assert made.status == 0, made.err
    table = "params/embedding/table_VD"
    assert params(sparse)[table] == params(dense)[table]
    assert len(params(sparse)) > len(params(dense))


def test_pruning_from_a_bucket_into_one(command, run, gs):
    made = f"{gs.folder()}/{ODD}/pruned"
    flags = ("--to_dense", "--gin.EVAL_STEPS=1", "--json")
    outcome = command("prune", f"--from_dir={run}", f"--model_dir={made}", *flags)
    assert outcome.status == 0, outcome.err
    assert json.loads(storage.read_text(f"{made}/pruning.json", "X")) == json.loads(outcome.out)
    assert ".unfinished" not in storage.names_in(made, "X")
    found = json.loads(command("info", "--json", f"--model_dir={made}").out)
    after = json.loads(outcome.out)["parameters"]["after"]
    assert sum(found["parameters"].values()) == after


def test_a_plan_in_a_bucket(store):
    url = f"{store.folder()}/{ODD}"
    directory = saved.choose_directory(url, "run", "one")
    written = saved.save(directory, "one", "text", {}, None)
    assert list(map(str, written)) == [f"{url}/plan.json", f"{url}/plan.txt"]
    assert saved.choose_directory(url, "run", "one") == directory


COMMANDS = {
    "--gin_file": ("train", "--gin_file={}/a.gin"),
    "MODEL_DIR": ("info", "--model_dir={}"),
    "--from_dir": ("upcycle", "--from_dir={}", "--model_dir=new"),
    "--from_dir of prune": ("prune", "--to_dense", "--from_dir={}", "--model_dir=new"),
    "--input hf": ("import", "--from=hf", "--input={}", "--model_dir=new"),
    "--input t5x": ("import", "--from=t5x", "--input={}", "--model_dir=new"),
    "--input": ("infer", "--input={}"),
    "--output": ("infer", "--output={}/x"),
    "--output of export": ("export", "--to=hf", "--output={}"),
    "--model_dir": ("import", "--from=hf", "--input=x", "--model_dir={}"),
}


def refused(outcome, tmp_path):
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("switchx: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert not list(tmp_path.iterdir())
    return outcome.err


@pytest.mark.parametrize("named", COMMANDS)
def test_places_that_cannot_be_used(command, gs, tmp_path, named):
    """One line that names the setting and what to do, and nothing is made."""
    name, flags = named.split()[0], COMMANDS[named]

    def call(place):
        said = refused(command(*(flag.format(place) for flag in flags)), tmp_path)
        assert name.lower().strip("-") in said.lower(), said
        return said

    assert "has a scheme that is not known" in call("gcs2://bucket/a")
    assert "is neither a URL nor a path: write gs://bucket/a" in call("gs:/bucket/a")
    if "output" in named or named == "--model_dir":
        assert "there is no bucket 'no-such-bucket': make it" in call("gs://no-such-bucket/a")
        assert "cannot be written to: name a place on this machine, at gs:// or" in call(
            "https://x/a"
        )
    else:
        call("gs://no-such-bucket/a")
    gs.choose = lambda method, path: 401
    assert "no valid credentials: for gs:// run `gcloud" in call(gs.folder())
    gs.choose = lambda method, path: 403
    assert "permission denied: this account needs to read" in call(gs.folder())


def test_nothing_heavy_is_loaded_for_a_refusal(gs, tmp_path):
    code = (
        "import json, sys; from switchx.cli.main import main\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    assert main(argv) == 2, argv\n"
        "    assert not {'tensorflow', 'orbax'} & set(sys.modules), argv\n"
    )
    there = "gs://no-such-bucket/a"
    calls = [[flag.format(there) for flag in flags] for flags in COMMANDS.values()]
    ended = subprocess.run(
        [sys.executable, "-c", code, json.dumps(calls)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert not list(tmp_path.iterdir())
