"""Writes one shard of a prepared set: the unit of work that a Beam worker takes."""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.prepared.cutting import Reading, records_of
from switchx.data.prepared.records import encode, salt_of
from switchx.data.prepared.set_plan import PREPARING, SetPlan, ShardFacts
from switchx.data.streamed import pipeline
from switchx.data.tasks import lookup
from switchx.errors import RunError

PROGRESS_SECONDS = 2.0
# A record a chunk, for reads at any place. Not compressed: ids save a sixth, for twice the time.
WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to write. Plain values: it travels to the worker that does it.

    Attributes:
      config: as the user gave it; the worker finds the task with it.
      url: the folder of the set.
    """

    config: DataConfig
    plan: SetPlan
    url: str
    split: str
    shard: int

    @property
    def file(self) -> str:
        """The shard's name."""
        return self.plan.file(self.split, self.shard)


def write_shard(job: ShardJob) -> None:
    """Writes the shard and, after it, its facts, unless both are there.

    Raises:
      UserError: the source cannot be read.
      RunError: the shard cannot be written.
    """
    if finished(job) is not None:
        return
    config = job.config.of_task(job.plan.task)
    task = lookup.find_provider(config)
    reading = Reading()
    records = records_of(task, job.plan, job.split, job.shard, reading)
    with pipeline.reporting_errors(task, config):
        try:
            with storage.whole_file(f"{job.url}/{job.file}") as path:
                unknown_id = task.output_features["targets"].vocabulary.unk_id
                facts = _write(path, job, _reporting(records, reading, job), reading, unknown_id)
            text = json.dumps(dataclasses.asdict(facts))
            storage.write_whole(notes_of(job.url, facts_name(job)), text)
        except RunError as error:
            raise RunError(
                f"{str(error).removesuffix('.')}; what was finished stays: run the same command "
                "to go on."
            ) from error


def finished(job: ShardJob) -> ShardFacts | None:
    """The facts of a shard that is whole; None where it must be written (again)."""
    content = storage.read_if_there(notes_of(job.url, facts_name(job)), "PREPARED_DIR")
    try:
        facts = None if content is None else ShardFacts(**json.loads(content))
    except (ValueError, TypeError):
        return None
    if facts is None:
        return None
    size = storage.size_of(f"{job.url}/{job.file}", "PREPARED_DIR")
    return facts if size == facts.bytes else None


def notes_of(url: str, name: str) -> str:
    """Where a set's notes lie until it is whole: what was finished, how far the rest is."""
    return f"{url}/{PREPARING}/{name}"


def facts_name(job: ShardJob) -> str:
    """The file that says that a shard is whole."""
    return f"{job.file}.json"


def progress_name(job: ShardJob) -> str:
    """The file that says how far a shard is."""
    return f"{job.file}.progress"


def _write(
    path: Path,
    job: ShardJob,
    records: Iterator[list[np.ndarray]],
    reading: Reading,
    unknown_id: int | None,
) -> ShardFacts:
    from array_record.python.array_record_module import ArrayRecordWriter

    first = next(records, [])
    salt = salt_of(first, job.plan.dtype)
    count = tokens = unknown = 0
    writer: Any = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        for arrays in itertools.chain([first] if first else [], records):
            writer.write(encode(arrays, job.plan.dtype, salt))
            count += 1
            tokens += sum(map(len, arrays))
            unknown += sum(int(np.count_nonzero(array == unknown_id)) for array in arrays)
        writer.close()
    except RuntimeError as error:  # what its C++ side makes of a full disk
        raise OSError(0, str(error).partition(";")[0]) from error
    size, digest = path.stat().st_size, _sha256(path)
    return ShardFacts(
        count, reading.documents, reading.text_bytes, tokens, unknown, size, digest, salt
    )


def _reporting(
    records: Iterator[list[np.ndarray]], reading: Reading, job: ShardJob
) -> Iterator[list[np.ndarray]]:
    """The same records; says every few seconds how far they are."""
    said = time.monotonic()
    for record in records:
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            so_far = {"documents": reading.documents, "text_bytes": reading.text_bytes}
            storage.write_whole(notes_of(job.url, progress_name(job)), json.dumps(so_far))
        yield record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
