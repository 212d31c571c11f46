"""Batches depend on seed and step; a position brings back the very next one."""

import dataclasses
import io
import shutil
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest

from switchx.data import check_position, eval_batches, train_stream
from switchx.errors import UserError

from ..conftest import digest, docs_config, record, sentences, write_lines


def take(stream, count):
    return [digest(next(stream)) for _ in range(count)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, t5_model):
    """A JSON task of so little text that an epoch is a few batches; two shards, broken lines."""
    folder = tmp_path_factory.mktemp("tiny")
    for shard in range(2):
        lines = [record(text) for text in sentences(30, seed=shard)]
        write_lines(folder / f"train-{shard}.json.gz", [*lines[:9], "{broken", *lines[9:]])
    write_lines(folder / "validation.json", map(record, sentences(20, seed=9)))
    return docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        json_train_glob=str(folder / "train-*.json.gz"),
        json_validation_glob=str(folder / "validation.json"),
        vocabulary=t5_model,
        max_broken_share=0.05,
    )


# Its threads are still parsing lines when it ends: it must end all the same.
RESUME = """
import sys, time
from tests.data.conftest import digest, docs_config
from switchx.data import DataConfig, train_stream
from switchx.data.tensorflow_loader import load_tensorflow
load_tensorflow()
from switchx.data.tasks import objectives, texts
parse = texts.LineCounter.parse
texts.LineCounter.parse = lambda *args: time.sleep(0.005) or parse(*args)
objectives.SHUFFLED_ROWS = 20
for config, state in zip(sys.argv[1::2], sys.argv[2::2]):
    stream = train_stream(eval(config))
    stream.restore({0: open(state, "rb").read()})
    print(*(digest(next(stream)) for _ in range(3)))
"""


def test_restart_in_another_process(tiny, tmp_path):
    arguments, expected = [], []
    for number, (config, steps) in enumerate([(docs_config(), 7), (tiny, 40)]):
        stream = train_stream(config)
        take(stream, steps)
        (tmp_path / f"{number}").write_bytes(stream.state()[0])
        arguments += [repr(config), str(tmp_path / f"{number}")]
        expected += take(stream, 3)
    command = [sys.executable, "-c", RESUME, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=150)
    assert done.stdout.split() == expected


def test_restart_in_this_process_from_any_step(tiny):
    stream = train_stream(tiny)
    expected, states = [], []
    for _ in range(40):
        states.append(stream.state())
        expected += take(stream, 1)
    assert len(set(expected)) == 40  # also: epochs are shuffled and corrupted anew
    for step in (30, 1, 0):
        stream.restore(states[step])
        assert take(stream, 10) == expected[step : step + 10]
    assert take(train_stream(tiny), 40) == expected  # taking positions changed nothing


def rows_of(batch):
    """A digest of each row."""
    names = sorted(batch)
    return [digest({name: batch[name][n] for name in names}) for n in range(len(batch[names[0]]))]


@pytest.mark.parametrize(("shards", "hosts"), [(2, [0, 1]), (4, [0, 3])])
def test_shards_are_the_same_rows_on_any_number_of_hosts(tiny, shards, hosts):
    """One host with all of them, or one for each: four of two files, so also by example."""
    config = dataclasses.replace(tiny, shards=shards)
    whole, per_shard = train_stream(config, range(shards)), tiny.batch_size // shards
    apart = {shard: train_stream(config, [shard]) for shard in hosts}
    seen = []
    for _ in range(6):
        rows = rows_of(next(whole))
        for shard, stream in apart.items():
            assert rows_of(next(stream)) == rows[shard * per_shard : (shard + 1) * per_shard]
        seen += rows
    assert len(set(seen)) == len(seen)
    states = {shard: stream.state()[shard] for shard, stream in apart.items()}
    if len(hosts) == shards:
        expected, fresh = rows_of(next(whole)), train_stream(config, range(shards))
        fresh.restore(states)  # positions of many hosts, restored on one
        assert rows_of(next(fresh)) == expected


def test_seed_decides(tiny):
    first = take(train_stream(tiny), 5)
    other = take(train_stream(dataclasses.replace(tiny, seed=1)), 5)
    assert not set(first) & set(other)


def test_report_counts_lines(tiny):
    stream = train_stream(tiny)
    assert stream.report() == {"lines": 0, "broken_lines": 0}
    next(stream)
    report = stream.report()
    assert report["lines"] % 31 == 0  # whole shards
    assert report["broken_lines"] * 31 == report["lines"]
    state = stream.state()
    fresh = train_stream(tiny)
    fresh.restore(state)
    assert fresh.report()["lines"] >= report["lines"]
    assert train_stream(docs_config()).report() == {}


@pytest.fixture(scope="module")
def tiny_state(tiny):
    return train_stream(tiny).state()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 5}, "SEED=5, but the data of the checkpoint in MODEL_DIR was read with 0: set "),
        (
            {"shards": 2},
            "DATA_SHARDS=2, but .* with 1: set that, or start the data anew with",
        ),
        ({"pack": True}, "PACK=True, but .* with False: "),
        ({"prepared_dir": "absent"}, "holds no prepared set"),
        ({"feature_lengths": {"inputs": 32, "targets": 18}}, "TASK_FEATURE_LENGTHS=.*32.*64"),
        ({"vocabulary": "bytes"}, "VOCABULARY='bytes', .* another MODEL_DIR.$"),
    ],
)
def test_a_position_of_other_data(tiny, tiny_state, change, sentence):
    other = dataclasses.replace(tiny, **change)
    with pytest.raises(UserError, match=sentence):
        train_stream(other).restore(tiny_state)
    with pytest.raises(UserError, match=sentence):
        check_position(other, tiny_state[0])
    check_position(tiny, tiny_state[0])
    check_position(other, tiny_state[0][:-9])  # what is damaged is told by who restores it


def test_a_position_of_another_task(tiny_state):
    with pytest.raises(UserError, match="MIXTURE_OR_TASK_NAME='python_docs_span_corruption'"):
        train_stream(docs_config()).restore(tiny_state)


def test_a_position_of_other_files(tiny, tiny_state, tmp_path):
    """Files may be moved; they may not be others."""
    for path in Path(tiny.json_train_glob).parent.glob("train-*"):
        shutil.copy(path, tmp_path)
    moved = dataclasses.replace(tiny, json_train_glob=str(tmp_path / "train-*.json.gz"))
    check_position(moved, tiny_state[0])
    write_lines(tmp_path / "train-1.json.gz", map(record, sentences(31)))
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN='.*', but .* was read with '.*': set that"):
        check_position(moved, tiny_state[0])
    fewer = dataclasses.replace(tiny, json_train_glob=tiny.json_train_glob.replace("*", "0"))
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN='.*-0\.json\.gz', but"):
        check_position(fewer, tiny_state[0])


def test_another_size_of_batch_reads_on_at_the_next_example(tiny):
    """Through changes behind a block and within one, past the end of an epoch."""
    shards = 2
    config = dataclasses.replace(tiny, shards=shards)
    whole = train_stream(config, range(shards))
    per_shard = [[] for _ in range(shards)]
    for _ in range(19):
        for rows, found in zip(
            np.split(np.array(rows_of(next(whole))), shards), per_shard, strict=True
        ):
            found += rows.tolist()
    seen = [[] for _ in range(shards)]
    state = None
    for size, steps in ((4, 5), (10, 3), (6, 4)):
        stream = train_stream(dataclasses.replace(config, batch_size=size), range(shards))
        if state:
            check_position(dataclasses.replace(config, batch_size=size), state[0])
            stream.restore(state)
        for _ in range(steps):
            batch = next(stream)
            assert len(batch["decoder_target_tokens"]) == size
            for rows, found in zip(np.split(np.array(rows_of(batch)), shards), seen, strict=True):
                found += rows.tolist()
        state = stream.state()
    for found, expected in zip(seen, per_shard, strict=True):
        assert found == expected[: len(found)]
        assert len(found) == (20 + 30 + 24) // shards


def test_skipped_examples_are_those_that_would_have_come(tiny):
    config = dataclasses.replace(tiny, shards=2)
    whole, skipping = train_stream(config, (0, 1)), train_stream(config, (0, 1))
    expected = take(whole, 8)
    assert take(skipping, 1) == expected[:1]
    skipping.skip(5 * tiny.batch_size)
    assert take(skipping, 2) == expected[6:]


def with_entry(state: bytes, name: str) -> bytes:
    buffer = io.BytesIO(state)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


def test_damaged_positions(tiny, tmp_path):
    stream = train_stream(tiny)
    state = stream.state()[0]
    outside = f"../{tmp_path.name}-outside"
    for broken in (b"", b"nonsense", state[:-100], with_entry(state, outside)):
        with pytest.raises(UserError, match="data position in the checkpoint of MODEL_DIR cannot"):
            stream.restore({0: broken})
    kept = [n for n in zipfile.ZipFile(io.BytesIO(state)).namelist() if n != "iterator.index"]
    smaller = io.BytesIO()
    with zipfile.ZipFile(smaller, "w") as archive, zipfile.ZipFile(io.BytesIO(state)) as whole:
        for name in kept:
            archive.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="data position in the checkpoint of MODEL_DIR cannot"):
        stream.restore({0: smaller.getvalue()})


def test_evaluation_is_the_same_at_every_call_and_seed(tiny):
    first = [digest(batch) for batch in eval_batches(tiny)]
    assert first == [digest(b) for b in eval_batches(dataclasses.replace(tiny, seed=3))]
    assert len(first) == tiny.eval_batches


def test_evaluation_fills_up_the_last_batch(tiny):
    config = dataclasses.replace(tiny, eval_batch_size=7, eval_batches=1000)
    batches = list(eval_batches(config))
    assert {x.shape[0] for batch in batches for x in batch.values()} == {7}
    rows = np.concatenate([batch["encoder_input_tokens"].any(axis=1) for batch in batches])
    weights_BL = np.concatenate([batch["decoder_loss_weights"] for batch in batches])
    assert rows.sum() % 7  # or there was nothing to fill up
    assert rows[: rows.sum()].all()  # all padding rows come last
    assert not weights_BL[~rows].any()
    one_by_one = dataclasses.replace(config, eval_batch_size=1)
    assert sum(1 for _ in eval_batches(one_by_one)) == rows.sum()


def test_an_error_does_not_keep_the_iterator(tiny, tmp_path):
    """One that lived until Python shuts down would keep the process from ending."""
    config = dataclasses.replace(
        tiny, json_train_glob=write_lines(tmp_path / "t.json", ["{broken"] * 3), vocabulary="bytes"
    )
    stream = train_stream(config)
    (shard,) = stream._shards.values()
    iterator = weakref.ref(shard._started())
    with pytest.raises(UserError, match="3 of 3 lines") as caught:
        next(stream)
    stream.close()
    assert iterator() is None
    assert caught.value.__traceback__ is not None
