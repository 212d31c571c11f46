"""Training on prepared sets: each example a function of seed and place, whoever asks for it."""

import dataclasses
import json
import re
import shutil
import threading
import time

import numpy as np
import pytest

from switchx import data
from switchx.data.prepared.stream import READING_THREADS, ROWS_OF_A_BLOCK, PreparedStream
from switchx.errors import RunError, UserError

from ..conftest import digest
from .test_preparation import json_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    made = json_config(tmp_path_factory.mktemp("json"), batch_size=8)
    data.prepare(made)
    return made


def take(stream, count):
    return [next(stream) for _ in range(count)]


def digests(stream, count):
    return [digest(batch) for batch in take(stream, count)]


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_the_batch_does_not_depend_on_who_reads_which_rows(config, shards):
    whole = take(data.train_stream(config), 40)
    cut = dataclasses.replace(config, shards=shards)
    parts = [take(data.train_stream(cut, (shard,)), 40) for shard in range(shards)]
    last_two = take(data.train_stream(cut, (shards - 2, shards - 1)), 40)
    for step in range(40):
        for name, x in whole[step].items():
            assert np.array_equal(x, np.concatenate([part[step][name] for part in parts]))
            assert np.array_equal(x[-2 * (8 // shards) :], last_two[step][name])


@pytest.mark.parametrize("step", [0, 1, 127, 128, 129, 3000])
def test_a_restart_goes_on_and_reads_nothing_again(config, step):
    stream = data.train_stream(config)
    take(stream, step)
    state = stream.state()
    expected = digests(stream, 3)
    restarted = PreparedStream(config)
    restarted.restore(state)
    assert digests(restarted, 3) == expected
    # A block being used and those read ahead: nothing of the steps before.
    assert restarted._sets.counter.records <= (READING_THREADS + 2) * ROWS_OF_A_BLOCK
    restarted.restore(state)  # also one that was used
    assert digests(restarted, 3) == expected
    assert restarted.state() == stream.state()


@pytest.mark.parametrize("prepared", [True, False])
def test_the_decoder_is_fed_the_targets_one_later(config, prepared):
    folder = config.prepared_dir if prepared else None
    for batch in take(data.train_stream(dataclasses.replace(config, prepared_dir=folder)), 20):
        target_BL, weight_BL = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        ends_B = np.argmax(target_BL == 1, axis=1)  # the end of sequence, which has a loss too
        assert np.array_equal(weight_BL, np.arange(target_BL.shape[1]) <= ends_B[:, None])
        before_BL = np.pad(target_BL, ((0, 0), (1, 0)))[:, :-1]
        assert np.array_equal(batch["decoder_input_tokens"] * weight_BL, before_BL * weight_BL)
        assert not (target_BL * (1 - weight_BL)).any()


def test_every_record_comes_once_an_epoch(config):
    stream = PreparedStream(config)
    (count,) = stream._sets.lengths
    order, batches = stream._order, -(-count // 8)
    records = order.places(np.arange(count)).record_R
    assert sorted(records.tolist()) == list(range(count))
    rows = np.concatenate([batch["decoder_target_tokens"] for batch in take(stream, batches)])
    assert len(np.unique(rows[:count], axis=0)) == count


def test_another_epoch_masks_other_tokens(config):
    stream = PreparedStream(config)
    (count,) = stream._sets.lengths
    order = stream._order
    places = order.places(np.arange(2 * count))
    twice = np.flatnonzero(places.record_R == 7)
    assert places.epoch_R[twice].tolist() == [0, 1]
    batch = stream._sets.batch(type(places)(*(x[twice] for x in vars(places).values())), 0)
    first, second = batch["encoder_input_tokens"]
    assert not np.array_equal(first, second)


def test_seeds_differ(config):
    other = dataclasses.replace(config, seed=1)
    assert digests(data.train_stream(config), 1) != digests(data.train_stream(other), 1)


def test_a_position_of_another_seed_is_refused(config):
    state = data.train_stream(config).state()
    other = dataclasses.replace(config, seed=5)
    with pytest.raises(UserError, match=r"SEED=5, but .* was read with 0: set that, or start the"):
        data.train_stream(other).restore(state)
    with pytest.raises(UserError, match=r"SEED=5, but .* was read with 0"):
        data.check_position(other, state[0])
    data.check_position(config, state[0])


def test_another_size_of_batch_and_other_shards_read_on_at_the_next_example(config):
    def rows(batches):
        return np.concatenate([batch["encoder_input_tokens"] for batch in batches])

    whole, seen, state = rows(take(data.train_stream(config), 100)), [], None
    for size, shards, steps in ((8, 1, 5), (12, 4, 3), (2, 2, 9), (32, 1, 10)):
        changed = dataclasses.replace(config, batch_size=size, shards=shards)
        streams = [data.train_stream(changed, (shard,)) for shard in range(shards)]
        if state:
            data.check_position(changed, state)
            for shard, stream in enumerate(streams):
                stream.restore({shard: state})
        for _ in range(steps):
            seen.append(rows([next(stream) for stream in streams]))
        (state,) = {position for stream in streams for position in stream.state().values()}
    found = np.concatenate(seen)
    assert len(found) == 40 + 36 + 18 + 320
    assert np.array_equal(found, whole[: len(found)])


def test_skipped_examples_are_those_that_would_have_come(config):
    expected, stream = digests(data.train_stream(config), 9), data.train_stream(config)
    assert digests(stream, 2) == expected[:2]
    stream.skip(5 * 8)
    assert digests(stream, 2) == expected[7:]


def test_a_position_of_another_set_is_refused(config, tmp_path):
    other = json_config(tmp_path, batch_size=8)
    data.prepare(other, shards=2)
    with pytest.raises(UserError, match=r"PREPARED_DIR='.*', but .* was read with '.*': set that"):
        data.train_stream(other).restore(data.train_stream(config).state())
    moved = dataclasses.replace(config, prepared_dir=str(tmp_path / "moved"))
    shutil.copytree(config.prepared_dir, moved.prepared_dir)
    data.check_position(moved, data.train_stream(config).state()[0])


def test_a_position_of_no_settings_is_refused(config):
    state = json.dumps({"format": "prepared 2", "identity": {"SEED": []}, "example": 7}).encode()
    with pytest.raises(UserError, match="MIXTURE_OR_TASK_NAME="):
        data.train_stream(config).restore({0: state})


def test_positions_of_streamed_and_prepared_data_do_not_mix(config):
    streamed = data.train_stream(dataclasses.replace(config, prepared_dir=None))
    prepared = data.train_stream(config)
    with pytest.raises(UserError, match="position in the checkpoint"):
        streamed.restore(prepared.state())
    with pytest.raises(UserError, match="position in the checkpoint"):
        prepared.restore(streamed.state())
    with pytest.raises(UserError, match=r"PREPARED_DIR='.*', but .* was read with None: set that"):
        data.check_position(config, streamed.state()[0])
    with pytest.raises(UserError, match=r"PREPARED_DIR=None, but .* was read with '.*': set that"):
        data.check_position(dataclasses.replace(config, prepared_dir=None), prepared.state()[0])


@pytest.mark.parametrize(
    "change",
    [{"example": -1}, {"example": "7"}, {"example": None}, {"format": "x"}, {"identity": 3}],
)
def test_damaged_positions(config, change):
    stream = data.train_stream(config)
    content = json.loads(stream.state()[0])
    for state in (json.dumps(content | change).encode(), b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(UserError, match="position in the checkpoint"):
            stream.restore({0: state})


def test_training_imports_no_tensorflow(config):
    import subprocess
    import sys

    code = (
        "import sys; from switchx import data; from switchx.data import DataConfig;"
        f"config = DataConfig(**{dataclasses.asdict(config)!r});"
        "data.preflight(config); next(data.train_stream(config)); list(data.eval_batches(config));"
        "data.vocabulary_digest(config); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr


def test_a_missing_set_is_named(config, tmp_path):
    other = dataclasses.replace(config, prepared_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"PREPARED_DIR=.* holds no prepared set of .*: run"):
        data.preflight(other)
    (tmp_path / "set.json").touch()
    with pytest.raises(UserError, match="is the folder of one task's set: name the one that it li"):
        data.preflight(other)


def test_a_reader_that_dies_ends_the_run_with_its_reason(config, monkeypatch):
    stream = data.train_stream(config)
    next(stream)

    def die(self, places, seed):
        raise UserError("the disk is gone.")

    monkeypatch.setattr("switchx.data.prepared.stream.PreparedSets.batch", die)
    with pytest.raises(UserError, match=r"the disk is gone\."):
        take(stream, 5000)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_reader_that_hangs_ends_the_run_in_time(config, monkeypatch, prepared):
    released = threading.Event()

    def hang(self, *_):
        released.wait(60)
        raise UserError("too late.")

    name = "prepared.stream.PreparedSets.batch" if prepared else "streamed.stream._Shard.take"
    if not prepared:
        import switchx.data.streamed.stream  # noqa: F401
    monkeypatch.setattr(f"switchx.data.{name}", hang)
    folder = config.prepared_dir if prepared else None
    stream = data.train_stream(dataclasses.replace(config, timeout=1.0, prepared_dir=folder))
    began = time.monotonic()
    with pytest.raises(RunError, match=r"came within DATA_TIMEOUT=1 seconds: .* to go on\."):
        next(stream)
    assert time.monotonic() - began < 10
    released.set()


def test_a_cut_file_is_judged_before_anything_is_read(config, tmp_path, capfd):
    shutil.copytree(config.prepared_dir, tmp_path / "cut")
    cut = dataclasses.replace(config, prepared_dir=str(tmp_path / "cut"))
    shard = next((tmp_path / "cut").rglob("train-00001*"))
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    said = f"{shard.name}', which has {size - 1:,} bytes and should have {size:,}"
    with pytest.raises(UserError, match=re.escape(said)):
        PreparedStream(cut)
    PreparedStream(dataclasses.replace(cut, max_broken_share=0.9))
    assert "records are lost in " in capfd.readouterr().err


def test_an_encoder_alone_is_fed_from_a_set_too(tmp_path):
    """Packed examples, masked when they were prepared."""
    lengths = {"inputs": 32, "targets": 32}
    masked = {"mixture_or_task_name": "c4_json_masked_lm", "pack": True}
    made = json_config(tmp_path, documents=20, feature_lengths=lengths, **masked)
    data.prepare(made)
    alone = dataclasses.replace(made, encoder_alone=True)
    mask = data.vocabulary(made).sentinel_id(0)
    whole = data.eval_batches(made)
    for batch, of_both in zip(data.eval_batches(alone), whole, strict=True):
        weight_BL, input_BL = batch["encoder_loss_weights"], batch["encoder_input_tokens"]
        np.testing.assert_array_equal(weight_BL > 0, input_BL == mask)
        target_BL = batch["encoder_target_tokens"]
        np.testing.assert_array_equal(target_BL, of_both["decoder_target_tokens"])
        np.testing.assert_array_equal((target_BL != input_BL), weight_BL > 0)
        np.testing.assert_array_equal(batch["encoder_segment_ids"], of_both["encoder_segment_ids"])
    assert 0 < weight_BL.sum() < weight_BL.size
    state = data.train_stream(alone).state()
    stream = data.train_stream(alone)
    stream.restore(state)
    assert next(stream).keys() == batch.keys()
