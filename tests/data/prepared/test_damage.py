"""Damage to a prepared set, at every file and place: named, and never read as something else."""

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from switchx import data
from switchx.data import DataConfig
from switchx.data.prepared import set_plan
from switchx.data.prepared.checking import check_split
from switchx.data.prepared.reader import RecordCounter, SplitReader
from switchx.errors import UserError

from .test_preparation import json_config

FLIPS = 24  # of single bits, spread over what a file has beside padding


def flips(content: bytes) -> Iterator[tuple[str, bytes]]:
    written = np.flatnonzero(np.frombuffer(content, np.uint8))
    for number, place in enumerate(written[np.linspace(0, len(written) - 1, FLIPS, dtype=int)]):
        yield f"bit {number % 8} of byte {place}", flipped(content, int(place), number % 8)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def damages(content: bytes, foreign: bytes) -> Iterator[tuple[str, bytes | None]]:
    """A name for each damage to a file, and the file's new content; None where it is gone."""
    yield "gone", None
    yield "empty", b""
    for share in (0.1, 0.5, 0.9):
        yield f"cut to {share}", content[: int(share * len(content))]
    yield "a byte short", content[:-1]
    yield "longer", content + b"\0" * 100
    yield "foreign", foreign
    yield "another file", b"\x89PNG\r\n" * (len(content) // 6)
    yield "zeros", bytes(len(content))
    middle = int(np.median(np.flatnonzero(np.frombuffer(content, np.uint8))))
    yield "a page of zeros", content[:middle] + bytes(4096) + content[middle + 4096 :]
    yield from flips(content)


def read_all(config: DataConfig, task: str, split: str) -> list[list[np.ndarray] | None]:
    folder = Path(str(config.prepared_dir)) / task
    reader = SplitReader(folder, set_plan.read_info(folder, task), split, RecordCounter(1.0))
    return reader.read(np.arange(len(reader)))


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def try_all(made: DataConfig, other: DataConfig, folder: Path) -> dict[str, int]:
    """Damages a copy of a set in every way; returns what was found how often."""
    task = made.mixture_or_task_name
    source, copy = Path(str(made.prepared_dir)) / task, folder / task
    config = dataclasses.replace(made, prepared_dir=str(folder))
    shutil.copytree(source, copy)
    expected = {split: read_all(made, task, split) for split in ("train", "validation")}
    counts = dict.fromkeys(("cases", "refused at the start", "harmless", "found by check"), 0)
    counts["records lost"] = 0
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        foreign = (Path(str(other.prepared_dir)) / task / path.name).read_bytes()
        for name, new in damages(content, foreign):
            path.unlink(missing_ok=True)
            if new is not None:
                path.write_bytes(new)
            counts["cases"] += 1
            _one_case(config, task, expected, counts, f"{path.name}: {name}")
        path.write_bytes(content)
    return counts


def _one_case(config, task, expected, counts, case) -> None:
    try:
        found = {split: read_all(config, task, split) for split in expected}
    except UserError as error:  # set.json: nothing can be read without it
        said = str(error)
        counts["refused at the start"] += "set.json" in said or "holds no prepared set" in said
        return
    lost = 0
    for split, records in expected.items():
        for there, was in itertools.zip_longest(found[split], records):
            lost += there is None
            assert there is None or same(there, was), f"{case}: read as something else"
    counts["records lost"] += lost
    counts["harmless"] += lost == 0
    folder = Path(str(config.prepared_dir)) / task
    info = set_plan.read_info(folder, task)
    reports = [check_split(folder, info, split, lambda n: None) for split in expected]
    problems = [problem for report in reports for problem in report.problems]
    if case.startswith("set.json"):  # its end of line is no part of what it says
        assert lost in (0, len(expected["train"]) + len(expected["validation"]))
        counts["found by check"] += 1
        return
    assert problems, f"{case}: check finds nothing"
    assert all(problem.startswith(case.split(":")[0]) for problem in problems), problems
    counts["found by check"] += 1


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """Two small sets of the same settings and other text."""
    made, other = (
        json_config(tmp_path_factory.mktemp("json"), documents=50, first_seed=seed)
        for seed in (0, 70)  # the other set has fewer records
    )
    for config in (made, other):
        data.prepare(config)
    return made, other


def test_no_damage_is_read_as_something_else(two_sets, tmp_path):
    counts = try_all(*two_sets, tmp_path)
    print(counts)
    assert counts["cases"] == 5 * (11 + FLIPS)
    assert counts["found by check"] + counts["refused at the start"] == counts["cases"]
    assert counts["records lost"] > 1000


@pytest.fixture
def copy(two_sets, tmp_path):
    made, _ = two_sets
    shutil.copytree(made.prepared_dir, tmp_path, dirs_exist_ok=True)
    return dataclasses.replace(made, prepared_dir=str(tmp_path))


def damage_one_record(config: DataConfig, path: Path) -> None:
    content = path.read_bytes()
    for record in read_all(config, config.mixture_or_task_name, "train"):
        place = content.find(record[0].astype("<u2").tobytes())
        if place >= 0:
            path.write_bytes(flipped(content, place, 3))
            return


def test_training_passes_over_a_small_share_and_says_so(copy, capfd, two_sets):
    path = Path(copy.prepared_dir) / copy.mixture_or_task_name / "train-00001-of-00003.array_record"
    damage_one_record(copy, path)
    stream, whole = data.train_stream(copy), data.train_stream(two_sets[0])
    empty = 0
    for _ in range(200):
        batch, expected = next(stream), next(whole)
        for row in range(4):
            lost = not batch["decoder_loss_weights"][row].any()
            empty += lost
            assert lost or all(
                np.array_equal(x[row], expected[name][row]) for name, x in batch.items()
            )
    assert 0 < empty < 8
    assert "passing over broken data: record " in capfd.readouterr().err
    assert stream.report()["broken_records"] >= empty


def test_training_stops_past_the_share(copy):
    copy = dataclasses.replace(copy, max_broken_share=0.0001)
    path = Path(copy.prepared_dir) / copy.mixture_or_task_name / "train-00001-of-00003.array_record"
    damage_one_record(copy, path)
    stream = data.train_stream(copy)
    sentence = (
        r"MAX_BROKEN_LINES=0\.0001 but \d of [\d,]+ records are broken, for one record \d+ of"
    )
    with pytest.raises(UserError, match=sentence):
        list(itertools.islice(stream, 2000))


def test_a_lost_file_is_more_than_the_share(copy):
    path = Path(copy.prepared_dir) / copy.mixture_or_task_name / "train-00001-of-00003.array_record"
    path.unlink()
    with pytest.raises(
        UserError, match=r"records are broken, for one in .*00001-of-00003.* missing"
    ):
        data.preflight(copy)
