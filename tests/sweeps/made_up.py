"""Sweeps that are folders alone: nothing of them is ever trained."""

import json

from switchx import storage
from switchx.sweeps.claims import Claims
from switchx.sweeps.desk import Desk
from switchx.sweeps.folder import Fork, Point, SweepFolder


def point(name, flops=100, fork=None):
    return Point(name, {"A": name}, "0" * 64, 10, 1000, flops, 50, fork and Fork(*fork))


def sweep(path, *points, **settings):
    """A folder as `sweep plan` leaves it, of points by name or as `point` makes them."""
    made = tuple(p if isinstance(p, Point) else point(p) for p in points)
    folder = SweepFolder(storage.as_path(path), "made_up", made, **settings)
    storage.write_whole(folder.path / "sweep.json", folder.text())
    return SweepFolder.open(path)


class Clock:
    """Turned by the test alone."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def claims_of(folder, clock=None, **maker):
    by_name = {p.name: p for p in folder.points}
    own = {"switchx": "1", "code": "a", **maker}
    return Claims(lambda name: folder.state_directory(by_name[name]), own, clock=clock or Clock())


def desk_of(folder, clock=None, unfit=None, forkable=lambda point: False, **maker):
    """A desk, and what it said."""
    said = []
    problems = unfit or {}
    desk = Desk(
        folder,
        claims_of(folder, clock, **maker),
        lambda point: problems.get(point.name),
        forkable,
        said.append,
    )
    desk.said = said
    return desk


def held_elsewhere(folder, name, beat=0, number=0, **says):
    """A claim of a process of another machine, written by hand."""
    by_name = {p.name: p for p in folder.points}
    record = {"process": "7 on elsewhere", "place": "another", "switchx": "1", "code": "a"}
    path = folder.state_directory(by_name[name]) / f"claim.{number}"
    storage.write_whole(path, json.dumps({**record, "beat": beat, **says}))


def state_files(folder, name):
    by_name = {p.name: p for p in folder.points}
    return storage.names_in(folder.state_directory(by_name[name]), "X")
