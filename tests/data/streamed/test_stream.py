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


@pytest.fixture(scope="module")
def undisturbed(tiny):
    """What a stream gives in 40 steps, its position there, and the three steps behind it."""
    stream = train_stream(tiny)
    before = take(stream, 40)
    return before, stream.state(), take(stream, 3)


def test_restart_in_another_process(tiny, undisturbed, tmp_path):
    embedded = train_stream(docs_config())
    take(embedded, 7)
    _, state, after = undisturbed
    arguments = []
    for number, (config, at) in enumerate([(docs_config(), embedded.state()), (tiny, state)]):
        (tmp_path / f"{number}").write_bytes(at[0])
        arguments += [repr(config), str(tmp_path / f"{number}")]
    command = [sys.executable, "-c", RESUME, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=150)
    assert done.stdout.split() == [*take(embedded, 3), *after]


def test_restart_in_this_process_from_any_step(tiny, undisturbed):
    stream = train_stream(tiny)
    expected, states = [], []
    for _ in range(40):
        states.append(stream.state())
        expected += take(stream, 1)
    assert len(set(expected)) == 40  # also: epochs are shuffled and corrupted anew
    for step in (30, 1, 0):
        stream.restore(states[step])
        assert take(stream, 10) == expected[step : step + 10]
    assert undisturbed[0] == expected  # taking positions changed nothing


def rows_of(batch):
    """A digest of each row."""
    names = sorted(batch)
    return [digest({name: batch[name][n] for name in names}) for n in range(len(batch[names[0]]))]


@pytest.fixture(scope="module")
def halves(tiny):
    """Two shards read by one host: the config, digests of each one's rows, positions at step 5."""
    config = dataclasses.replace(tiny, shards=2)
    stream, rows, state = train_stream(config, (0, 1)), ([], []), {}
    for step in range(19):
        if step == 5:
            state = stream.state()
        found = rows_of(next(stream))
        for shard in (0, 1):
            rows[shard].extend(found[2 * shard : 2 * shard + 2])
    return config, rows, state


def test_shards_are_the_same_rows_on_one_host_and_on_two(halves):
    config, rows, _ = halves
    assert len({*rows[0], *rows[1]}) == len(rows[0] + rows[1])
    states = {}
    for shard, expected in enumerate(rows):
        stream = train_stream(config, [shard])
        assert [row for _ in range(6) for row in rows_of(next(stream))] == expected[:12]
        states |= stream.state()
    fresh = train_stream(config, (0, 1))
    fresh.restore(states)  # positions of two hosts, restored on one
    assert rows_of(next(fresh)) == rows[0][12:14] + rows[1][12:14]


def test_shards_of_one_file_are_some_of_its_examples(tiny):
    """Of more shards than files, each alone or with another on one host."""
    config = dataclasses.replace(tiny, shards=4)
    both, alone = train_stream(config, (0, 2)), train_stream(config, (2,))
    seen = []
    for _ in range(6):
        rows = rows_of(next(both))
        assert rows_of(next(alone)) == rows[1:]
        seen += rows
    assert len(set(seen)) == len(seen)


def test_seed_decides(tiny, undisturbed):
    other = take(train_stream(dataclasses.replace(tiny, seed=1)), 5)
    assert not set(undisturbed[0][:5]) & set(other)


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
    if change.keys() == {"seed"}:  # who restores it asks as `check_position` does
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


def test_another_size_of_batch_reads_on_at_the_next_example(halves):
    """Through changes behind a block and within one, past the end of an epoch."""
    config, (_, expected), state = halves
    found = expected[:10]
    for size, steps in ((10, 3), (6, 4)):
        changed = dataclasses.replace(config, batch_size=size)
        stream = train_stream(changed, (1,))
        check_position(changed, state[1])
        stream.restore(state)
        for _ in range(steps):
            rows = rows_of(next(stream))
            assert len(rows) == size // 2
            found = found + rows
        state = stream.state()
    assert found == expected[: len(found)]
    assert len(found) == (20 + 30 + 24) // 2


def test_skipped_examples_are_those_that_would_have_come(halves):
    config, (expected, _), _ = halves
    stream = train_stream(config, (0,))
    assert rows_of(next(stream)) == expected[:2]
    stream.skip(5 * config.batch_size)
    assert rows_of(next(stream)) + rows_of(next(stream)) == expected[12:16]


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
