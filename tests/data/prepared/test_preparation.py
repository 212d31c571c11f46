"""switchx data prepare: what it writes is what the task says, whole, whatever interrupts it."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from switchx import data, storage
from switchx.cli.main import main
from switchx.data import DataConfig
from switchx.data.prepared import preparation, set_plan
from switchx.data.prepared.reader import RecordCounter, SplitReader
from switchx.data.tasks.vocabularies import Bytes
from switchx.errors import RunError, UserError

from ..conftest import docs_config, record, sentences, write_lines


def json_config(folder: Path, documents: int = 150, first_seed: int = 0, **changes) -> DataConfig:
    """Three JSON-lines shards to train on and one to validate, read as bytes."""
    for shard in range(3):
        texts = sentences(documents, seed=first_seed + shard)
        write_lines(folder / f"train-{shard}.json.gz", map(record, texts))
    texts = sentences(40, seed=first_seed + 9)
    write_lines(folder / "validation-0.json.gz", map(record, texts))
    values = {
        "mixture_or_task_name": "c4_json_span_corruption",
        "feature_lengths": {"inputs": 64, "targets": 18},
        "batch_size": 4,
        "eval_batches": 2,
        "vocabulary": "bytes",
        "json_train_glob": str(folder / "train-*.json.gz"),
        "json_validation_glob": str(folder / "validation-*.json.gz"),
        "prepared_dir": str(folder / "prepared"),
    }
    return DataConfig(**{**values, **changes})


def records_of(config: DataConfig, task: str, split: str) -> list[list[np.ndarray]]:
    """All records of a split, in order."""
    folder = Path(config.prepared_dir) / task
    info = set_plan.read_info(folder, task)
    reader = SplitReader(folder, info, split, RecordCounter(0.0))
    return reader.read(np.arange(len(reader)))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    config = json_config(tmp_path_factory.mktemp("json"))
    return config, data.prepare(config)


def test_records_are_the_text_joined_and_cut(prepared):
    config, (info,) = prepared
    assert info.plan.cut == 70
    assert info.plan.shards == {"train": 3, "validation": 1}
    words, expected = Bytes(), []
    for shard in range(3):
        texts = sentences(150, seed=shard)
        for group in (texts[:128], texts[128:]):  # t5 joins 128 documents
            tokens = [token for text in group for token in words.encode(text)]
            expected += [tokens[at : at + 70] for at in range(0, len(tokens), 70)]
    found = [tokens.tolist() for (tokens,) in records_of(config, info.plan.task, "train")]
    assert found == expected
    facts = info.shards["train"]
    assert sum(f.documents for f in facts) == 450
    assert sum(f.tokens for f in facts) == sum(map(len, expected))
    assert sum(f.text_bytes for f in facts) == sum(
        len(text) for shard in range(3) for text in sentences(150, seed=shard)
    )


def test_rows_are_those_of_the_streamed_task_but_for_their_spans(prepared):
    """The same rows of the same text, by the sum of what is masked and what is not."""
    config, _ = prepared
    streamed = dataclasses.replace(config, prepared_dir=None)
    rows = [
        sorted(whole(row) for batch in data.eval_batches(of) for row in rows_of(batch))
        for of in (config, streamed)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 8


def test_all_of_a_split_is_each_record_once(prepared):
    config, (info,) = prepared
    for size in (1, 7, 64):
        of = dataclasses.replace(config, eval_batch_size=size, eval_batches=None)
        batches = list(data.eval_batches(of))
        real = np.concatenate([batch["decoder_loss_weights"].any(axis=1) for batch in batches])
        assert real.sum() == info.records("validation") == data.num_examples(of)
        assert real[: real.sum()].all()


def rows_of(batch):
    return [{name: x[row] for name, x in batch.items()} for row in range(4)]


def whole(row):
    from switchx.data.examples import examples_of, filled_in

    ((inputs, targets),) = examples_of({name: x[None] for name, x in row.items()})
    assert inputs[-1] == targets[-1] == 1
    return filled_in(inputs, targets, Bytes())


def test_preparing_again_does_nothing(prepared):
    config, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in Path(config.prepared_dir).rglob("*")}
    data.prepare(config)
    assert before == {p: p.stat().st_mtime_ns for p in Path(config.prepared_dir).rglob("*")}


@pytest.mark.parametrize(
    "change",
    [
        {"cut": 71},
        {"cut": 0},
        {"cut": 2**30},
        {"cut": "70"},
        {"density": 0.9},
        {"mean_span": 0.1},
        {"vocab_size": -1},
        {"feature_lengths": {"inputs": 2**40, "targets": 18}},
        {"feature_lengths": {"inputs": 64}},
        {"shards": {"../train": 3, "validation": 1}},
        {"shards": {"train": 4, "validation": 1}},
        {"vocab_size": float("nan")},
    ],
)
def test_a_strangers_plan_is_refused(prepared, change):
    """Also one whose checksum is right: what it would lead to must be a batch."""
    _, (info,) = prepared
    wrong = dataclasses.replace(info, plan=dataclasses.replace(info.plan, **change))
    with pytest.raises(UserError, match=r"'set.json' is damaged"):
        set_plan.parse_info(wrong.text().encode(), "set.json")


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"feature_lengths": {"inputs": 32, "targets": 18}}, "TASK_FEATURE_LENGTHS"),
        ({"pack": True}, "PACK"),
        ({"vocabulary": "python_docs"}, "VOCABULARY"),
    ],
)
def test_other_settings_are_refused(prepared, change, setting):
    config, _ = prepared
    other = dataclasses.replace(config, **change)
    with pytest.raises(UserError, match=f"^{setting}=.* was prepared with"):
        data.prepare(other)
    with pytest.raises(UserError, match=f"^{setting}=.* was prepared with"):
        data.train_stream(other)


def test_a_task_of_pairs_keeps_its_examples(tmp_path):
    config = own_config(tmp_path, "own_shouting")
    data.prepare(config)
    words = Bytes()
    for inputs, targets in records_of(config, "own_shouting", "train"):
        text = words.decode(inputs.tolist())
        assert inputs[-1] == targets[-1] == 1
        assert text.startswith("number")
        assert words.decode(targets.tolist()) == text.upper()
    stream = data.train_stream(config)
    batch = next(stream)
    target_L = batch["decoder_target_tokens"][0]
    assert words.decode(target_L) == words.decode(batch["encoder_input_tokens"][0]).upper()
    assert np.array_equal(
        batch["decoder_input_tokens"][0, 1:],
        np.where(batch["decoder_loss_weights"][0, 1:] > 0, target_L[:-1], 0),
    )


def test_short_examples_are_packed(tmp_path):
    config = own_config(tmp_path, "own_shouting", pack=True)
    data.prepare(config)
    rows = records_of(config, "own_shouting", "train")
    examples = [
        (i.tolist(), t.tolist()) for row in rows for i, t in zip(row[::2], row[1::2], strict=True)
    ]
    alone = own_config(tmp_path / "alone", "own_shouting")
    data.prepare(alone)
    expected = [(i.tolist(), t.tolist()) for i, t in records_of(alone, "own_shouting", "train")]
    assert sorted(examples) == sorted(expected)
    assert len(rows) <= len(expected) // 2
    batch = next(data.train_stream(config))
    segment_L = batch["encoder_segment_ids"][0]
    count = segment_L.max()
    assert count >= 2
    assert sorted(set(segment_L.tolist())) in (
        [*range(count + 1)],
        [*range(1, count + 1)],
    )
    for number in range(1, count + 1):
        inputs, targets = (
            batch[name][0][batch[f"{side}_segment_ids"][0] == number].tolist()
            for name, side in (
                ("encoder_input_tokens", "encoder"),
                ("decoder_target_tokens", "decoder"),
            )
        )
        shifted = batch["decoder_input_tokens"][0][batch["decoder_segment_ids"][0] == number]
        assert (inputs, targets) in expected
        assert shifted.tolist() == [0, *targets[:-1]]


def test_a_mixture_is_its_tasks_and_their_rates(tmp_path):
    config = own_config(tmp_path, "own_mixture")
    infos = data.prepare(config)
    assert [info.plan.task for info in infos] == ["own_branching", "own_shouting"]
    assert json.loads((tmp_path / "own_mixture" / "mixture.json").read_text())["rates"] == {
        "own_shouting": 1.0,
        "own_branching": 1.0,
    }
    stream, short = data.train_stream(config), 0
    for _ in range(50):
        short += int(((next(stream)["encoder_input_tokens"] > 0).sum(axis=1) <= 11).sum())
    assert 80 < short < 120  # own_branching cuts its inputs to 10 characters; half of 200 rows


def own_config(folder: Path, name: str, **changes) -> DataConfig:
    values = {
        "mixture_or_task_name": name,
        "feature_lengths": {"inputs": 100, "targets": 100},
        "batch_size": 4,
        "eval_batches": 2,
        "task_module": "tests.data.own_tasks",
        "prepared_dir": str(folder),
    }
    return DataConfig(**{**values, **changes})


def command(config: DataConfig, *more: str) -> list[str]:
    macros = {
        "MIXTURE_OR_TASK_NAME": config.mixture_or_task_name,
        "TASK_FEATURE_LENGTHS": dict(config.feature_lengths),
        "VOCABULARY": config.vocabulary,
        "C4_JSON_TRAIN": config.json_train_glob,
        "C4_JSON_VALIDATION": config.json_validation_glob,
        "PREPARED_DIR": config.prepared_dir,
    }
    flags = [f"--gin.{name}={value!r}" for name, value in macros.items()]
    return [sys.executable, "-m", "switchx.cli.main", "data", "prepare", *flags, *more]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_killed_and_begun_again_it_ends_the_same(prepared, tmp_path):
    """As soon as it has written a shard, in the midst of the next."""
    whole_config, (info,) = prepared
    config = dataclasses.replace(whole_config, prepared_dir=str(tmp_path))
    folder = tmp_path / info.plan.task
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True)
    while not any(folder.glob("*.array_record")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    if not (folder / "set.json").exists():
        with pytest.raises(
            UserError, match=r"unfinished set of .*: run .switchx data prepare. again"
        ):
            data.train_stream(config)
    data.prepare(config)
    expected = bytes_of(Path(whole_config.prepared_dir) / info.plan.task)
    assert bytes_of(folder) == expected


def test_a_full_disk_takes_nothing_away(prepared, tmp_path, capsys):
    """A limit to the size of files stands for a disk that is full: shards have 128 kB."""
    config = dataclasses.replace(prepared[0], prepared_dir=str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, before[1]))
    try:
        status = main(command(config)[3:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert "cannot be written" in last
    assert "File too large); what was finished stays: run the same command to go on." in last
    assert "Traceback" not in said
    data.prepare(config)
    task = config.mixture_or_task_name
    assert bytes_of(tmp_path / task) == bytes_of(Path(prepared[0].prepared_dir) / task)


def test_a_half_written_shard_is_written_again(prepared, tmp_path):
    whole_config, (info,) = prepared
    config = dataclasses.replace(whole_config, prepared_dir=str(tmp_path))
    source, folder = Path(whole_config.prepared_dir) / info.plan.task, tmp_path / info.plan.task
    notes = folder / "preparing"
    notes.mkdir(parents=True)
    for shard, facts in enumerate(info.shards["train"]):
        name = info.plan.file("train", shard)
        shutil.copy(source / name, folder / name)
        (notes / f"{name}.json").write_text(json.dumps(dataclasses.asdict(facts)))
    cut = folder / info.plan.file("train", 1)
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / ".train-00000.part").write_bytes(b"half")
    whole = folder / info.plan.file("train", 2)
    before = whole.stat().st_mtime_ns
    data.prepare(config)
    assert bytes_of(folder) == bytes_of(source)
    assert whole.stat().st_mtime_ns == before


def test_two_at_once(prepared, tmp_path):
    config = dataclasses.replace(prepared[0], prepared_dir=str(tmp_path))
    lock = tmp_path / "c4_json_span_corruption" / "preparing" / ".lock"
    with (
        storage.exclusive_lock(lock, "it", "test"),
        pytest.raises(UserError, match=r"PREPARED_DIR='.*' is in use by another switchx data prep"),
    ):
        data.prepare(config)


def test_beams_own_flags_reach_beam(prepared, tmp_path, monkeypatch):
    """Another process writes, as they say: this one cannot."""
    whole_config, (info,) = prepared
    config = dataclasses.replace(whole_config, prepared_dir=str(tmp_path))
    monkeypatch.setattr(preparation, "write_shard", None)
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    assert main(command(config, "--splits=validation", "--", *flags)[3:]) == 0
    file = f"{info.plan.task}/{info.plan.file('validation', 0)}"
    expected = (Path(whole_config.prepared_dir) / file).read_bytes()
    assert (tmp_path / file).read_bytes() == expected


def test_a_runner_that_beam_does_not_know(prepared, tmp_path):
    config = dataclasses.replace(prepared[0], prepared_dir=str(tmp_path))
    with pytest.raises((UserError, RunError), match=r"Apache Beam stopped .*No"):
        data.prepare(config, beam_flags=["--runner=No"])
    with pytest.raises(
        UserError, match="'--nope' behind -- is no flag of Apache Beam: leave it out"
    ):
        data.prepare(config, beam_flags=["--nope"])
    with pytest.raises(UserError, match="behind --: argument --direct_num_workers: invalid int"):
        data.prepare(config, beam_flags=["--direct_num_workers=x"])


def test_broken_lines_stop_it_with_their_sentence(tmp_path):
    config = json_config(tmp_path)
    write_lines(tmp_path / "train-1.json.gz", ["{broken"] * 150)
    with pytest.raises(UserError, match=r"MAX_BROKEN_LINES=0.01 but 150 of 150 lines"):
        data.prepare(config)


def test_shards_may_be_more_than_files(tmp_path):
    config = json_config(tmp_path)
    (info,) = data.prepare(config, splits=("validation",), shards=3)
    assert info.plan.shards == {"validation": 3}
    found = [t for (row,) in records_of(config, info.plan.task, "validation") for t in row.tolist()]
    expected = [t for text in sentences(40, seed=9) for t in Bytes().encode(text)]
    assert sorted(found) == sorted(expected)


def test_embedded_corpus_from_the_command_line(tmp_path, capfd):
    """Prepared and checked; beside what is asked for, nothing is printed."""
    flags = [
        f"--gin.PREPARED_DIR={str(tmp_path)!r}",
        f"--gin.TASK_FEATURE_LENGTHS={docs_config().feature_lengths}",
    ]
    assert main(["data", "prepare", "--splits=validation", *flags]) == 0  # a twentieth of it
    made = capfd.readouterr().err
    print(made)
    assert "documents/s" in made
    assert "MB/s" in made
    assert "eta" in made
    assert main(["data", "check", *flags]) == 0
    out, err = capfd.readouterr()
    assert out.endswith("nothing is wrong\n")
    assert err == ""


OTHER_SOURCES = {
    "rewritten": (lambda c, folder: write_more(folder / "train-0.json.gz"), "another '.*train-0"),
    "another file": (
        lambda c, folder: write_more(folder / "train-9.json.gz"),
        "other files than '.*train-9",
    ),
    "a file less": (
        lambda c, folder: (folder / "train-2.json.gz").unlink(),
        "'.*train-2.json.gz', which is no source of 'train' now",
    ),
}


def test_another_field_of_the_same_files_is_refused():
    """Of a set from before fields were noted, the field was 'text'."""
    there = {"train": {"a": [1, 2]}, "settings": {"TEXT_FIELD": "text", "TASK_FIELDS": {}}}
    here = {"train": {"a": [1, 2]}, "settings": {"TEXT_FIELD": "body"}}
    for made_of in (there, {"train": {"a": [1, 2]}}):
        assert set_plan.other_source(made_of, here) == "TEXT_FIELD='text', and not 'body'"
    fields = {"settings": {"TASK_FIELDS": {"inputs": "q"}}}
    assert set_plan.other_source(there, fields) == "TASK_FIELDS={}, and not {'inputs': 'q'}"
    assert set_plan.other_source({"train": {}}, fields) is None
    assert set_plan.other_source(there, there) is None


def write_more(path: Path) -> None:
    write_lines(path, map(record, sentences(150, seed=77)))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("case", OTHER_SOURCES)
def test_other_sources_are_refused(tmp_path, monkeypatch, case, whole):
    """Into a set that is finished, and into one that was begun."""
    config = json_config(tmp_path, documents=20)
    if whole:
        data.prepare(config, shards=1)
    else:
        with monkeypatch.context() as patch:
            patch.setattr("switchx.data.prepared.preparation._run", interrupt)
            with pytest.raises(KeyboardInterrupt):
                data.prepare(config, shards=1)
    change, sentence = OTHER_SOURCES[case]
    change(config, tmp_path)
    with pytest.raises(UserError, match=f"PREPARED_DIR=.* holds 'c4_json.*' made of {sentence}"):
        data.prepare(config, shards=1)


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_set_from_before_sources_were_noted(prepared, tmp_path):
    """It is whole, gives what it gave, and its position is one of the same set."""
    config = dataclasses.replace(prepared[0], prepared_dir=str(tmp_path))
    task = config.mixture_or_task_name
    shutil.copytree(Path(prepared[0].prepared_dir) / task, tmp_path / task)
    old = prepared[1][0].text(with_sources=False)
    (tmp_path / task / "set.json").write_text(old)
    data.prepare(config)
    assert (tmp_path / task / "set.json").read_text() == old
    stream = data.train_stream(config)
    stream.restore(data.train_stream(prepared[0]).state())


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ({"inputs": 64, "targets": 10}, "give at least 14 targets"),
        ({"inputs": 5, "targets": 10}, "give at least 10 inputs"),
        ({"inputs": 4096, "targets": 910}, "take 227 sentinels and VOCABULARY='.*' has 100"),
    ],
)
@pytest.mark.parametrize("default", [True, False])
def test_lengths_are_refused_before_anything_is_written(tmp_path, lengths, sentence, default):
    name = "python_docs_span_corruption" if default else "c4_json_span_corruption"
    config = json_config(
        tmp_path,
        mixture_or_task_name=name,
        feature_lengths=lengths,
        vocabulary="default" if default else "bytes",
    )
    with pytest.raises(UserError, match=sentence):
        data.prepare(config)
    assert not (tmp_path / "prepared").exists()
    with pytest.raises(UserError, match=sentence):
        data.preflight(dataclasses.replace(config, prepared_dir=None), ["train"])


@pytest.mark.parametrize("is_prepared", [True, False])
def test_sentinels_in_a_text_are_text(tmp_path, t5_model, is_prepared):
    """Of streamed and prepared rows alike, exactly the spans have sentinels."""
    config = json_config(tmp_path, vocabulary=t5_model, batch_size=8)
    texts = [f"number {n} <extra_id_{n % 9}> and <pad> </s>, then words" for n in range(400)]
    for path in tmp_path.glob("*.json.gz"):
        write_lines(path, map(record, texts))
    if is_prepared:
        data.prepare(config, shards=1)
    else:
        config = dataclasses.replace(config, prepared_dir=None)
    batch, words = next(data.train_stream(config)), data.vocabulary(config)
    rows_BL = batch["encoder_input_tokens"]
    assert ((rows_BL >= words.sentinel_id(99)).sum(axis=1) == 3).all()
    assert (rows_BL != words.pad_id).all()
    assert ((rows_BL == words.eos_id).sum(axis=1) == 1).all()
