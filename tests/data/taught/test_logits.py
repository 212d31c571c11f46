"""A teacher's logits beside a prepared set: whole or refused, and each with its own example."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from switchx import data, storage
from switchx.data.prepared.set_plan import PREPARING
from switchx.data.taught import stream as reading
from switchx.data.taught.checking import check_logits, names_of_sets
from switchx.data.taught.logit_set import folder_of_set, read_set
from switchx.data.taught.records import Taught, decode, encode
from switchx.data.taught.writing import Writing
from switchx.errors import UserError

from .made import TOP_K, examples_of, packed_set, plan_of, prepared_set

EXAMPLES = 28  # more than an epoch of 20, in shards of 8


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A set with the logits "a"."""
    made = prepared_set(tmp_path_factory.mktemp("set"))
    written(made)
    return made


def written(config, name="a", examples=EXAMPLES, **changes):
    """Writes what lacks of a set of logits; which shards that were."""
    folder = folder_of_set(config, name)
    writing = Writing(folder, dataclasses.replace(plan_of(config), **changes), examples)
    todo = list(writing.todo)
    with writing.locked():
        writing.begin()
        for shard in todo:
            first = sum(writing.counts[:shard])
            writing.write(shard, examples_of(config, first, first + writing.counts[shard]))
        writing.finish()
    return todo


def taught(config, name="a", **changes):
    return data.train_stream(dataclasses.replace(config, logits=name, **changes))


def numbers(batch):
    """The example that each row's logits are of, where all of them say the same."""
    counts_BL = data.targets_of(batch)[1] > 0
    found = []
    for logits, ids, own in zip(
        batch["teacher_logits"], batch["teacher_ids"], counts_BL, strict=True
    ):
        assert not logits[~own].any()
        (number,) = np.unique(logits[own])
        assert (ids[own] == number % 7).all()
        found.append(int(number))
    return found


def test_a_record_is_what_was_written_or_nothing():
    rng = np.random.default_rng(0)
    for top_k, size in ((3, 100), (100, 100), (2, 70_000)):
        ids = rng.integers(0, size, (5, top_k))
        logits = rng.normal(size=(5, top_k + (top_k < size))).astype(np.float32)
        record = encode(Taught(7, ids, logits), top_k, size, salt=1)
        found = decode(record, top_k, size, 1)
        assert found.mark == 7
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.logits, logits)
        assert decode(record, top_k, size, 2) is None
        for place in range(len(record)):
            flipped = bytearray(record)
            flipped[place] ^= 4
            assert decode(bytes(flipped), top_k, size, 1) is None
        assert decode(record[:-1], top_k, size, 1) is None


def test_each_row_has_the_logits_of_its_example(config, monkeypatch):
    """In an epoch and behind it, after a skip and a resume, by parts and in other batches."""
    stream, plain = taught(config), data.train_stream(config)
    for step in range(EXAMPLES // 4):
        batch, own = next(stream), next(plain)
        assert numbers(batch) == [*range(4 * step, 4 * step + 4)]
        assert all(np.array_equal(batch[name], x) for name, x in own.items())
        if step == 2:
            state = stream.state()
    with pytest.raises(UserError, match="has the logits of 28 examples, and this run takes more"):
        next(stream)
    stream.restore(state)
    assert numbers(next(stream)) == [12, 13, 14, 15]
    stream.skip(4)
    assert numbers(next(stream)) == [20, 21, 22, 23]
    part = data.train_stream(dataclasses.replace(config, logits="a", shards=2), (1,))
    assert [numbers(next(part)) for _ in range(2)] == [[2, 3], [6, 7]]
    assert numbers(next(taught(config, batch_size=7))) == [*range(7)]


@pytest.mark.parametrize("alone", [False, True], ids=["packed", "an encoder alone"])
def test_of_packed_rows_and_masked_tokens_what_counts_is_kept(tmp_path, alone):
    config = dataclasses.replace(packed_set(tmp_path / "set"), encoder_alone=alone)
    written(config)
    found = read_set(config, "a")
    batches = [next(stream) for stream in [taught(config)] for _ in range(EXAMPLES // 4)]
    assert [n for batch in batches for n in numbers(batch)] == [*range(EXAMPLES)]
    counts = [data.targets_of(batch)[1] > 0 for batch in batches]
    assert found.tokens == np.sum(counts)
    tokens = sum((batch["encoder_input_tokens"] > 0).sum() for batch in batches)
    assert found.tokens < 0.5 * tokens if alone else found.tokens == tokens


def test_in_a_bucket_it_is_the_same(gs, config):
    """Copied there, and written there."""
    folder = gs.folder()
    there = dataclasses.replace(config, prepared_dir=folder, prepared_cache_gb=0)
    here = Path(config.prepared_dir)
    for path in here.rglob("*"):
        if path.is_file():
            storage.write_whole(f"{folder}/{path.relative_to(here)}", path.read_bytes())
    assert numbers(next(taught(there))) == [0, 1, 2, 3]
    assert written(there, "b") == [0, 1, 2, 3]
    stream = taught(there, "b")
    assert [n for _ in range(7) for n in numbers(next(stream))] == [*range(28)]
    assert names_of_sets(there) == (["a", "b"], [])
    report = check_logits(folder_of_set(there, "b"), read_set(there, "b"), lambda n: None)
    assert (report.records, report.problems) == (EXAMPLES, [])


def interrupted(examples):
    yield from examples
    raise KeyboardInterrupt


def test_what_was_finished_stays_and_more_is_added(config, tmp_path):
    own = dataclasses.replace(config, prepared_dir=str(tmp_path / "set"))
    shutil.copytree(config.prepared_dir, own.prepared_dir)
    folder = folder_of_set(own, "b")
    writing = Writing(folder, plan_of(own), EXAMPLES)
    writing.begin()
    writing.write(0, examples_of(own, 0, 8))
    with pytest.raises(KeyboardInterrupt):  # in the midst of the second
        writing.write(1, interrupted(examples_of(own, 8, 12)))
    with pytest.raises(UserError, match=r"holds unfinished logits of that name .* again to go on"):
        taught(own, "b")
    assert names_of_sets(own) == (["a"], ["b"])
    with pytest.raises(UserError, match=r"TEACHER='runs/b', but the logits TEACHER_LOGITS='b'"):
        written(own, "b", settings={"TEACHER": ["runs/b", "another"]})
    noted = folder / PREPARING / "logits-00000.array_record.json"
    facts = noted.read_bytes()
    noted.write_bytes(facts[:5])  # damaged: that shard is written anew
    assert Writing(folder, plan_of(own), EXAMPLES).todo == [0, 1, 2, 3]
    noted.write_bytes(facts)
    begun = folder / PREPARING / "plan.json"
    plan = begun.read_text()
    begun.write_text(plan.replace('"top_k": ', '"top_k": -'))
    with pytest.raises(UserError, match=r"plan.json' is damaged: remove"):
        Writing(folder, plan_of(own), EXAMPLES)
    begun.write_text(plan)
    assert written(own, "b") == [1, 2, 3]
    written(own, "c")  # at once
    for path in folder_of_set(own, "c").iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert written(own, "b") == []
    assert written(own, "b", examples=8) == []  # what there is more of stays
    assert written(own, "b", examples=36) == [3, 4]  # the last was not full
    stream = taught(own, "b")
    assert [n for _ in range(9) for n in numbers(next(stream))] == [*range(36)]


def test_damage_is_named_and_mended(config, tmp_path):
    own = dataclasses.replace(config, prepared_dir=str(tmp_path / "set"))
    shutil.copytree(config.prepared_dir, own.prepared_dir)
    folder = folder_of_set(own, "a")
    path = folder / "logits-00001.array_record"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(np.float32(9).tobytes() * (TOP_K + 1))] ^= 1
    path.write_bytes(flipped)
    stream = taught(own)
    assert [numbers(next(stream))[0] for _ in range(2)] == [0, 4]
    with pytest.raises(UserError, match=r"record 1 of '.*logits-00001.* is damaged or of another"):
        next(stream)
    report = check_logits(folder, read_set(own, "a"), lambda n: None)
    assert report.problems == [
        "a/logits-00001.array_record is not the file that was written (SHA-256): "
        "1 of 8 records broken"
    ]
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"logits-00001.array_record' has .* and should have"):
        taught(own)
    path.unlink()
    with pytest.raises(UserError, match=r"logits-00001.array_record' is missing"):
        taught(own)
    assert written(own) == [1]
    assert path.read_bytes() == whole


def test_logits_of_other_examples_are_not_taken(config):
    """The same files beside a set of other rows, which its fingerprint tells before."""
    with pytest.raises(UserError, match="damaged or of another example"):
        next(taught(config, seed=1))


def test_no_more_is_read_ahead_than_fits(config, monkeypatch):
    monkeypatch.setattr(reading, "_AHEAD_BYTES", 1)
    stream = taught(config)
    assert [numbers(next(stream))[0] for _ in range(7)] == [*range(0, 28, 4)]
    assert stream._ahead == 1
