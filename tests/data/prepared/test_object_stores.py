"""Prepared sets at gs:// and s3://: the same rows as from a local copy, whatever the store does."""

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import object_stores
import pytest

from switchx import data, storage
from switchx.cli.main import main
from switchx.data.prepared import preparation, set_plan
from switchx.data.prepared.checking import check_split
from switchx.data.prepared.stream import set_folder
from switchx.errors import UserError
from switchx.storage import leases
from tests.storage.conftest import quick  # noqa: F401  (a fixture)

from ..conftest import digest
from .test_preparation import bytes_of, json_config

TASK = "c4_json_span_corruption"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A set on this machine: three shards of 70 kB to train on, and one to validate."""
    folder = tmp_path_factory.mktemp("json")
    config = json_config(folder, batch_size=8, prepared_cache_gb=0, cache_dir=str(folder / "cache"))
    data.prepare(config)
    return config


def uploaded(local, folder):
    """The config of a copy of the set in a folder of an object store."""
    for name, content in bytes_of(Path(local.prepared_dir) / TASK).items():
        storage.write_whole(f"{folder}/{TASK}/{name}", content)
    return dataclasses.replace(local, prepared_dir=folder)


def digests(stream, count):
    return [digest(batch) for batch in itertools.islice(stream, count)]


@pytest.fixture(scope="module")
def expected(local):
    """The first steps from the local copy."""
    return digests(data.train_stream(local), 300)


def test_rows_are_those_of_the_local_copy(store, local, expected):
    """From the start, from a position of the local one, by parts, and to evaluate on."""
    config = uploaded(local, f"{store.folder()}/a [b]#ü %41")
    data.preflight(config)
    stream = data.train_stream(config)
    assert digests(stream, 300) == expected
    here = data.train_stream(local)
    digests(here, 150)
    stream.restore(here.state())
    assert digests(stream, 10) == expected[150:160]
    assert list(map(digest, data.eval_batches(config))) == list(
        map(digest, data.eval_batches(local))
    )
    cut = dataclasses.replace(config, shards=4)
    parts = [data.train_stream(cut, shards) for shards in ((0,), (1, 2), (3,))]
    whole = next(data.train_stream(local))
    rows = [next(part) for part in parts]
    for name, x in whole.items():
        assert np.array_equal(x, np.concatenate([part[name] for part in rows]))
    assert data.vocabulary_digest(config) == data.vocabulary_digest(local)


def test_faults_change_nothing(store, local, expected, quick):  # noqa: F811
    """A fifth of all requests: errors, resets, cut bodies, lost answers, and slow ones."""
    config = uploaded(local, store.folder())
    faults = object_stores.at_random(0.2, seed=1)
    count = itertools.count()
    store.choose = lambda *request: 0.2 if next(count) % 10 == 9 else faults(*request)
    data.preflight(config)
    assert digests(data.train_stream(config), 60) == expected[:60]
    assert store.requests["GET"] > 20


def test_whole_copies_take_the_place_of_requests(gs, local, expected, tmp_path, capfd):
    config = dataclasses.replace(
        uploaded(local, gs.folder()), prepared_cache_gb=1, cache_dir=str(tmp_path)
    )
    first = data.train_stream(config)
    assert digests(first, 200) == expected[:200]
    first._copies.join()
    assert digests(first, 100) == expected[200:]
    copies = list((tmp_path / "prepared-shards").iterdir())
    assert sorted(copy.read_bytes() for copy in copies) == sorted(
        content
        for name, content in bytes_of(Path(local.prepared_dir) / TASK).items()
        if name.startswith("train")
    )
    said = f"copying 3 of 3 shards, 0.00 GB, to {str(tmp_path / 'prepared-shards')!r}"
    assert said in capfd.readouterr().err
    # Another run uses the same copies, but for one that was damaged meanwhile.
    copies[0].write_bytes(bytes(copies[0].stat().st_size))
    gs.requests.clear()
    second = data.train_stream(config)
    second._copies.start(saying=False)
    second._copies.join()
    assert sum(f"{copies[0].name}" in str(key) for key in gs.requests) == 0
    gs.requests.clear()
    assert digests(second, 300) == expected
    assert gs.requests["GET"] == 0


def test_copies_keep_within_their_limit(gs, local, expected, tmp_path):
    """One of three shards fits; what another set left there goes, the oldest first."""
    config = uploaded(local, gs.folder())
    info = set_plan.read_info(set_folder(config, TASK), TASK)
    size = info.shards["train"][0].bytes
    folder = tmp_path / "prepared-shards"
    folder.mkdir()
    (folder / "old").write_bytes(bytes(size))
    limited = dataclasses.replace(
        config, prepared_cache_gb=1.5 * size / 1e9, cache_dir=str(tmp_path)
    )
    stream = data.train_stream(limited)
    stream._copies.start(saying=False)
    stream._copies.join()
    assert [path.stat().st_size for path in folder.iterdir()] == [size]
    assert not (folder / "old").exists()
    assert digests(stream, 300) == expected


def damage(config, name, change):
    url = f"{config.prepared_dir}/{TASK}/{name}"
    storage.write_whole(url, change(storage.read_bytes(url, "X")))


def flipped(content):
    changed = bytearray(content)
    changed[1000] ^= 8
    return bytes(changed)


def test_damage_is_named(gs, local, expected, tmp_path, capfd):
    config = uploaded(local, gs.folder())
    name = "train-00001-of-00003.array_record"
    damage(config, name, flipped)
    info = set_plan.read_info(set_folder(config, TASK), TASK)
    facts = info.shards["train"][1]
    report = check_split(set_folder(config, TASK), info, "train", lambda n: None)
    assert report.problems == [
        f"{name} is not the file that was written (SHA-256): 1 of {facts.records} records broken"
    ]
    stream = data.train_stream(config)
    found = digests(stream, 300)
    assert 0 < sum(a != b for a, b in zip(found, expected, strict=True)) < 10
    says = rf"passing over broken data: record \d+ of '{config.prepared_dir}/{TASK}/{name}'"
    assert re.search(says, capfd.readouterr().err)
    # Nor is it taken for a copy.
    copying = dataclasses.replace(config, prepared_cache_gb=1, cache_dir=str(tmp_path))
    stream = data.train_stream(copying)
    stream._copies.start(saying=False)
    stream._copies.join()
    assert f"{name}' is not the file that was written (SHA-256)" in capfd.readouterr().err
    assert len(list((tmp_path / "prepared-shards").iterdir())) == 2
    assert digests(stream, 300) == found


def test_a_file_that_is_cut_or_missing_is_named(gs, local):
    config = uploaded(local, gs.folder())
    damage(config, "train-00001-of-00003.array_record", lambda content: content[:-1])
    with pytest.raises(UserError, match=r"records are broken, for one in 'gs:.*00001-of.* has "):
        data.preflight(config)
    storage.remove(f"{config.prepared_dir}/{TASK}/train-00001-of-00003.array_record")
    with pytest.raises(UserError, match=r"for one in 'gs:.*00001-of.*, which is missing"):
        data.preflight(config)
    storage.remove(f"{config.prepared_dir}/{TASK}/set.json")
    with pytest.raises(UserError, match=r"PREPARED_DIR='gs:.*' holds no prepared set of 'c4_json"):
        data.preflight(config)


def flags(config):
    return [
        f"--gin.PREPARED_DIR={config.prepared_dir!r}",
        f"--gin.MIXTURE_OR_TASK_NAME={TASK!r}",
        f"--gin.TASK_FEATURE_LENGTHS={dict(config.feature_lengths)}",
        "--gin.VOCABULARY='bytes'",
        "--gin.ENCODER_GROUP_SIZE=64",
        "--gin.DECODER_GROUP_SIZE=18",
    ]


def test_check_and_show(store, local, capfd):
    config = uploaded(local, store.folder())
    assert main(["data", "check", *flags(config)]) == 0
    assert capfd.readouterr().out.endswith("nothing is wrong\n")
    assert main(["data", "show", *flags(config), "--count=1"]) == 0
    out, err = capfd.readouterr()
    assert "<extra_id_0>" in out
    assert "copying" not in err


@pytest.mark.parametrize(
    ("status", "says"), [(401, "no valid credentials"), (403, "permission denied"), (404, "bucket")]
)
def test_refusals_end_a_run_before_it_begins(store, local, tmp_path, capfd, status, says):
    """In one line."""
    config = dataclasses.replace(local, prepared_dir=f"{store.folder()}/sets")
    if status == 404:
        config = dataclasses.replace(local, prepared_dir=f"{store.root}-missing/sets")
    else:
        store.choose = lambda *_: status
    assert main(["train", f"--model_dir={tmp_path / 'run'}", *flags(config)]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "PREPARED_DIR" in said[0]
    assert says in said[0]
    assert not (tmp_path / "run/config.gin").exists()


def test_prepared_into_a_bucket_and_interrupted(gs, local, monkeypatch, quick):  # noqa: F811
    """Through faults, ended after each shard: it goes on, and ends as a local one does."""
    config = dataclasses.replace(local, prepared_dir=f"{gs.folder()}/a [b]#ü %41")
    gs.choose = object_stores.at_random(0.05, seed=2)
    write_one, written = preparation.write_shard, []

    def end_behind_it(job):
        if not preparation.finished(job):
            write_one(job)
            written.append(job.file)
            raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "_run_beam", lambda jobs, _: list(map(end_behind_it, jobs)))
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            data.prepare(config)
        with pytest.raises(UserError, match=r"holds an unfinished set .* again to go on"):
            data.preflight(config)
    data.prepare(config)
    assert len(set(written)) == 4
    here = bytes_of(Path(local.prepared_dir) / TASK)
    folder = set_folder(config, TASK)
    assert storage.names_in(folder, "X") == set(here)
    for name, content in here.items():
        assert storage.read_bytes(folder / name, "X") == content


def test_one_preparer_at_a_time(gs, local, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.5)
    config = dataclasses.replace(local, prepared_dir=gs.folder())
    lock = f"{config.prepared_dir}/{TASK}/.lock"
    with (
        storage.exclusive_lock(lock, "it", "test"),
        pytest.raises(UserError, match=r"PREPARED_DIR='gs.*' is in use by another switchx data pr"),
    ):
        data.prepare(config)


def test_sources_in_a_bucket(gs, local, tmp_path):
    """JSON lines are read where they lie; other ones, of the same size too, are refused."""
    lines = gs.folder()
    for path in Path(local.json_train_glob).parent.glob("*.json.gz"):
        storage.write_whole(f"{lines}/{path.name}", path.read_bytes())
    config = dataclasses.replace(
        local,
        json_train_glob=f"{lines}/train-*.json.gz",
        json_validation_glob=f"{lines}/validation-*.json.gz",
        prepared_dir=str(tmp_path / "sets"),
    )
    data.prepare(config)
    theirs, ours = (bytes_of(Path(c.prepared_dir) / TASK) for c in (local, config))
    assert {n: c for n, c in theirs.items() if n != "set.json"} == {
        n: c for n, c in ours.items() if n != "set.json"
    }
    data.prepare(config)
    there = storage.read_bytes(f"{lines}/train-2.json.gz", "X")
    changed = bytearray(there)
    changed[4] ^= 1  # the time in its head
    storage.write_whole(f"{lines}/train-2.json.gz", bytes(changed))
    says = r"another '.*train-2.json.gz' \(.* bytes of hash .* then, .* bytes of hash .* now\)"
    with pytest.raises(UserError, match=says):
        data.prepare(config)
