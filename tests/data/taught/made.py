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
    words, folder, rng = Bytes(), directory / TASK, np.random.default_rng(seed)
    cut = span_lengths(LENGTHS["inputs"], NOISE_DENSITY, MEAN_SPAN).tokens
    facts, shards = {}, {"train": 1, "validation": 1}
    plan = SetPlan(
        TASK, LENGTHS, words.digest, words.size, words.eos_id, cut, NOISE_DENSITY, MEAN_SPAN,
        [True, True], False, shards,
    )  # fmt: skip
    folder.mkdir(parents=True)
    for split in shards:
        path = folder / plan.file(split, 0)
        arrays = [[rng.integers(3, 200, cut).astype(np.int32)] for _ in range(rows)]
        salt = salt_of(arrays[0], plan.dtype)
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for row in arrays:
            writer.write(encode(row, plan.dtype, salt))
        writer.close()
        sums = (rows, rows, rows, rows * cut, 0, path.stat().st_size, "", salt)
        facts[split] = [ShardFacts(*sums)]
    (folder / "set.json").write_text(SetInfo(plan, facts).text())
    return DataConfig(TASK, LENGTHS, 4, prepared_dir=str(directory), vocabulary="bytes")


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
        counts = batch["decoder_target_tokens"].shape
        number_B11 = np.arange(start, start + config.batch_size)[:, None, None]
        batch[IDS] = np.broadcast_to(number_B11 % 7, (*counts, TOP_K))
        batch[LOGITS] = np.broadcast_to(number_B11, (*counts, TOP_K + 1)).astype(np.float32)
        yield from taken_apart(batch)
