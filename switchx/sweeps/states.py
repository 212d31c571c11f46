"""How far each point is, read from the sweep's folder alone. Imports nothing heavy."""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from switchx import storage
from switchx.checks import is_number
from switchx.sweeps.claims import numbers
from switchx.sweeps.folder import Point, SweepFolder

DONE = "done.json"
_FAILED = re.compile(r"failed\.(\d{1,6})\.json")
_AT_ONCE = 16  # requests to a bucket


@dataclasses.dataclass(frozen=True)
class State:
    """What a point's folder of the sweep's `state` holds.

    Attributes:
      done: what done.json says; None before the point is done.
      failures: names of the files on tries that failed, the first one first.
      claimed: whether there is a claim, which may be over.
    """

    done: Mapping[str, Any] | None
    failures: tuple[str, ...]
    claimed: bool


class States:
    """Of a sweep's points; what cannot change any more is read once."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._done: dict[str, State] = {}

    def read(self) -> dict[str, State]:
        """Of all points, by name.

        Raises:
          UserError: the sweep's folder cannot be read.
        """
        left = [point for point in self.folder.points if point.name not in self._done]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip((p.name for p in left), pool.map(self.of, left), strict=True))
        return {p.name: self._done.get(p.name) or found[p.name] for p in self.folder.points}

    def of(self, point: Point) -> State:
        """Of one point."""
        folder = self.folder.state_directory(point)
        names = storage.names_in(folder, "SWEEP_DIR")
        done = None
        if DONE in names:  # with nothing in it, as after a crash where no links can be made: none
            found = storage.record_of(storage.read_if_there(folder / DONE, "SWEEP_DIR"))
            done = _facts(found) if found else None
        state = State(done, _in_order(names), bool(numbers(names)))
        if done is not None:
            self._done[point.name] = state
        return state

    def failed(self, state: State) -> bool:
        """Whether it was tried as often as it may be."""
        return state.done is None and len(state.failures) > self.folder.retries

    def why(self, point: Point, state: State) -> str:
        """Why its last try failed; "" if none did."""
        if not state.failures:
            return ""
        path = self.folder.state_directory(point) / state.failures[-1]
        return str(storage.record_of(storage.read_if_there(path, "SWEEP_DIR")).get("why", ""))

    def write_done(self, point: Point, facts: Mapping[str, Any]) -> bool:
        """Writes done.json if nobody did; whether it was written."""
        path, text = self.folder.state_directory(point) / DONE, json.dumps(facts) + "\n"
        if storage.create_once(path, text, "SWEEP_DIR"):
            return True
        if self.of(point).done is not None:
            return False
        storage.write_whole(path, text)
        return True

    def write_failure(self, point: Point, facts: Mapping[str, Any]) -> int:
        """Writes down a try that failed; returns its number, from 0."""
        folder, number = self.folder.state_directory(point), len(self.of(point).failures)
        while not storage.create_once(
            folder / f"failed.{number}.json", json.dumps(facts) + "\n", "SWEEP_DIR"
        ):
            number += 1
        return number

    def forget_failed(self) -> None:
        """Points that failed for good may be tried again."""
        for name, state in self.read().items():
            if self.failed(state):
                for file in state.failures:
                    storage.remove(self.folder.path / "state" / name / file)


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a done.json what can be: no loss that is a text, of somebody who wrote into it."""
    numbers = ("steps", "seconds", "overhead_seconds", "loss")
    return {
        name: value
        for name, value in record.items()
        if name not in numbers or (is_number(value) and math.isfinite(value))
    }


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    found = [(int(match[1]), name) for name in names if (match := _FAILED.fullmatch(name))]
    return tuple(name for _, name in sorted(found))
