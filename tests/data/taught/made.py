"""A prepared set made without TensorFlow, and logits that say which example they are of."""

from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from switchx import data
from switchx.data import DataConfig
from switchx.data.prepared.records import encode, salt_of
from switchx.data.prepared.set_plan import SetInfo, SetPlan, ShardFacts
from switchx.data.tasks.objectives import MEAN_SPAN, NOISE_DENSITY, span_lengths
from switchx.data.tasks.vocabularies import Bytes
from switchx.data.taught.logit_set import LogitPlan
from switchx.data.taught.records import IDS, LOGITS, taken_apart

TASK, LENGTHS = "c4_json_span_corruption", {"inputs": 64, "targets": 32}
TOP_K = 3


def prepared_set(directory: Path, rows: int = 20, seed: int = 0) -> DataConfig:
    """A set of so many random rows to train on, and as many to validate, below a directory."""
    rng, cut = np.random.default_rng(seed), span_lengths(64, NOISE_DENSITY, MEAN_SPAN).tokens
    records = [[rng.integers(3, 200, cut).astype(np.int32)] for _ in range(rows)]
    return _written(directory, TASK, LENGTHS, records, cut)


def packed_set(directory: Path, rows: int = 20) -> DataConfig:
    """The same of packed rows of two examples, whose inputs are targets with tokens masked."""
    rng, lengths, mask = np.random.default_rng(2), {"inputs": 64, "targets": 64}, Bytes().size - 1
    records = []
    for _ in range(rows):
        targets = [rng.integers(3, 200, size) for size in rng.integers(10, 32, 2)]
        masked = [np.where(rng.random(len(x)) < 0.3, mask, x) for x in targets]
        records.append([masked[0], targets[0], masked[1], targets[1]])
    return _written(directory, "own_masked", lengths, records, None)


def _written(directory, task, lengths, records, cut) -> DataConfig:
    words, folder, facts = Bytes(), directory / task, {}
    packed = cut is None
    plan = SetPlan(
        task, lengths, words.digest, words.size, words.eos_id, cut, NOISE_DENSITY, MEAN_SPAN,
        [True, True], packed, {"train": 1, "validation": 1},
    )  # fmt: skip
    folder.mkdir(parents=True)
    salt = salt_of(records[0], plan.dtype)
    for split in plan.shards:
        path = folder / plan.file(split, 0)
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for arrays in records:
            writer.write(encode(arrays, plan.dtype, salt))
        writer.close()
        count, tokens = len(records), sum(len(array) for arrays in records for array in arrays)
        facts[split] = [ShardFacts(count, count, count, tokens, 0, path.stat().st_size, "", salt)]
    (folder / "set.json").write_text(SetInfo(plan, facts).text())
    return DataConfig(
        task, lengths, 4, prepared_dir=str(directory), vocabulary="bytes", pack=packed
    )


def plan_of(config: DataConfig, shard_examples: int = 8) -> LogitPlan:
    """Of three logits for each target, by nobody."""
    settings = {**data.order_settings(config), "TEACHER": ["runs/a (step 1)", "seal"]}
    teacher = {"path": "runs/a", "step": 1, "seal": "seal"}
    size = Bytes().size
    return LogitPlan(settings, teacher, None, TOP_K, size, shard_examples)


def examples_of(config: DataConfig, first: int, last: int):
    """What is written of these examples of a run: each logit is the example's number."""
    stream = data.train_stream(config)
    stream.skip(first)
    for start in range(first, last, config.batch_size):
        batch = next(stream)
        counts = data.targets_of(batch)[0].shape
        number_B11 = np.arange(start, start + config.batch_size)[:, None, None]
        batch[IDS] = np.broadcast_to(number_B11 % 7, (*counts, TOP_K))
        batch[LOGITS] = np.broadcast_to(number_B11, (*counts, TOP_K + 1)).astype(np.float32)
        yield from taken_apart(batch)
