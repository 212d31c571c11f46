"""A sweep's folder on disk, as docs/sweeps.md describes it: what workers and reports read."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import switchx
from switchx import storage
from switchx.checks import COUNTED, ON_FAILURE, ORDERS, is_whole
from switchx.errors import UserError

FORMAT = 1
FILE = "sweep.json"


def label(varied: Mapping[str, Any]) -> str:
    """NAME=value, and so on."""
    return ", ".join(f"{name}={value!r}" for name, value in varied.items())


@dataclasses.dataclass(frozen=True)
class Fork:
    """Where a point's stable part comes from: a checkpoint of another."""

    point: str
    step: int


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep, as sweep.json has it.

    Attributes:
      name: what varies, and eight digits of `config`.
      varied: the value of each axis.
      config: SHA-256 of its config.gin without the line of MODEL_DIR.
      steps: of its training; tokens and flops: of all of them, as the sweep counts.
      parameters: of the model.
      fork: where its first steps come from, if not from itself.
    """

    name: str
    varied: Mapping[str, Any]
    config: str
    steps: int
    tokens: int
    flops: int
    parameters: int
    fork: Fork | None = None

    @property
    def label(self) -> str:
        """What varies, as a person reads it."""
        return label(self.varied)


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """What sweep.json says.

    Attributes:
      path: of the folder, here, at gs:// or s3://.
      name: of the sweep.
      points: that belong to it, in the order of its axes.
      retries, on_failure, order: as of `SweepConfig`.
      counted: which FLOPs were counted, as of `SweepConfig`.
      version: of the switchx that wrote it.
    """

    path: Path
    name: str
    points: tuple[Point, ...]
    retries: int = 2
    on_failure: str = "go_on"
    order: str = "longest"
    counted: tuple[str, ...] = ("logits",)
    version: str = switchx.__version__

    @classmethod
    def open(cls, path: storage.AnyPath, setting: str = "--sweep_dir") -> "SweepFolder":
        """Reads a sweep's folder.

        Raises:
          UserError: no sweep is there, or one of a newer format.
        """
        found = cls.there(path, setting)
        if found is None:
            raise UserError(
                f"{setting}={str(path)!r} holds no {FILE}, so no sweep was planned there: name its "
                "folder, or plan it with `switchx sweep plan --gin_file=...`."
            )
        return found

    @classmethod
    def there(cls, path: storage.AnyPath, setting: str = "--sweep_dir") -> "SweepFolder | None":
        """The same; None where no sweep is there."""
        folder = storage.as_path(path, setting)
        content = storage.read_if_there(folder / FILE, setting)
        if content is None:
            return None
        try:
            values = _object(json.loads(content))
            if _whole(values, "format", 1) <= FORMAT:
                return cls._of(folder, values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{setting}={str(path)!r} has a {FILE} that is none ({_said(error)}): name a "
                "sweep's folder, or remove the file and plan the sweep again."
            ) from None
        by = values.get("switchx")
        use = f"version {by} or later" if isinstance(by, str) else "a later version"
        raise UserError(
            f"{setting}={str(path)!r} has a sweep of format {values['format']}, and "
            f"this switchx reads up to {FORMAT}: use {use}."
        )

    @classmethod
    def _of(cls, folder: Path, values: Mapping[str, Any]) -> "SweepFolder":
        return cls(
            path=folder,
            name=str(values["name"]),
            points=_points(values["points"]),
            retries=_whole(values, "retries"),
            on_failure=_one_of(values, "on_failure", ON_FAILURE),
            order=_one_of(values, "order", ORDERS),
            counted=_counted(values.get("counted", ["logits"])),
            version=str(values["switchx"]),
        )

    def form(self) -> dict[str, Any]:
        """What stands in sweep.json."""
        return {
            "format": FORMAT,
            "switchx": self.version,
            "name": self.name,
            "points": [dataclasses.asdict(point) for point in self.points],
            "retries": self.retries,
            "on_failure": self.on_failure,
            "order": self.order,
            "counted": list(self.counted),
        }

    def text(self) -> str:
        """sweep.json as it is written."""
        return json.dumps(self.form(), indent=1) + "\n"

    def in_order(self) -> tuple[Point, ...]:
        """The points in the order in which they are to be run; a fork after what it comes from."""
        if self.order == "listed":
            waiting = list(self.points)
        else:
            waiting = sorted(self.points, key=lambda point: -point.flops)
        first = [point for point in waiting if point.fork is None]
        return tuple(first + [point for point in waiting if point.fork is not None])

    def run_directory(self, point: Point) -> Path:
        """MODEL_DIR of a point."""
        return self.path / "points" / point.name

    def config_file(self, point: Point) -> Path:
        """Its config.gin, there before its first start."""
        return self.run_directory(point) / "config.gin"

    def state_directory(self, point: Point) -> Path:
        """Where workers keep claim, done.json and failed.<n>.json."""
        return self.path / "state" / point.name


def _points(listed: Sequence[Any]) -> tuple[Point, ...]:
    points = tuple(_point(_object(each)) for each in listed)
    if not points:
        raise ValueError("it has no points")
    name, times = Counter(point.name for point in points).most_common(1)[0]
    if times > 1:
        raise ValueError(f"the point {name} stands there {times} times")
    return points


def _point(values: Mapping[str, Any]) -> Point:
    fork = values["fork"]
    return Point(
        name=_plain_name(values["name"]),
        varied=_object(values["varied"]),
        config=str(values["config"]),
        steps=_whole(values, "steps", 1),
        tokens=_whole(values, "tokens"),
        flops=_whole(values, "flops"),
        parameters=_whole(values, "parameters"),
        fork=None if fork is None else Fork(_plain_name(fork["point"]), _whole(fork, "step")),
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{json.dumps(value)[:40]} stands where a JSON object should")
    return value


def _whole(values: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = values[name]
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} is {value!r}, no whole number of at least {least}")
    return value


def _one_of(values: Mapping[str, Any], name: str, accepted: Sequence[str]) -> str:
    value = values[name]
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(accepted)}")
    return str(value)


def _counted(parts: Any) -> tuple[str, ...]:
    if not isinstance(parts, list) or not all(part in COUNTED for part in parts):
        raise ValueError(f"counted is {parts!r}, no list of {', '.join(COUNTED)}")
    return tuple(parts)


def _plain_name(name: Any) -> str:
    """A name that stays in the folder; whoever wrote the file may not have been us."""
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ValueError(f"{name!r} is no point's name")
    return name


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)
