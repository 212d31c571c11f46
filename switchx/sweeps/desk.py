"""Where a worker gets the next point to work on, and says what became of it."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from switchx.errors import RunError, UserError
from switchx.sweeps.claims import EXPIRY, Claim, Claims, Look
from switchx.sweeps.folder import Point, SweepFolder
from switchx.sweeps.states import State, States

POLL = 2.0  # seconds between two looks at what others hold
Say = Callable[[str], None]


@dataclasses.dataclass
class Left:
    """The points that a worker leaves, by name, when there is nothing more that it could do.

    Attributes:
      held: by another worker, and which.
      unfit: which this process's devices do not suit, and why.
      waiting: for a checkpoint of the point named.
    """

    held: dict[str, str] = dataclasses.field(default_factory=dict)
    unfit: dict[str, str] = dataclasses.field(default_factory=dict)
    waiting: dict[str, str] = dataclasses.field(default_factory=dict)


class Desk:
    """Hands out points: those not done, not held, that may be tried and that this process can run.

    Args:
      unfit: why this process cannot run a point, or None.
      forkable: whether a point that begins at another's checkpoint can begin there now.
      say: shows a line.
    """

    def __init__(
        self,
        folder: SweepFolder,
        claims: Claims,
        unfit: Callable[[Point], str | None],
        forkable: Callable[[Point], bool],
        say: Say,
    ) -> None:
        self.folder, self.states, self.left = folder, States(folder), Left()
        self._claims, self._unfit, self._forkable, self._say = claims, unfit, forkable, say
        self._order = {point.name: rank for rank, point in enumerate(folder.in_order())}
        self._points = {point.name: point for point in folder.points}
        self.handed_out = 0  # points, in all
        self._busy: set[str] = set()  # left to whoever trains them without a claim
        self._alive: set[str] = set()  # held by others that were seen to live since the last point

    def next(self) -> "tuple[Point, Claim] | None":
        """A point and this worker's claim of it; None where there is none now. `over` says more.

        Raises:
          UserError, RunError: the sweep's folder cannot be read or written.
        """
        states = self.states.read()
        self.left = Left()
        if self.stopped(states):
            return None
        for point in self._to_do(states):
            if not self._ready(point, states):
                continue
            found = self._claims.look(point.name)
            claim = self._claims.take(point.name) if found.next is not None else None
            if claim is None:
                self._note(point, found)
            elif self.states.of(point).done is not None:  # by another, since it was read
                claim.give_back()
            else:
                self._alive.clear()
                self.handed_out += 1
                return point, claim
        return None

    def rank(self, point: Point) -> int:
        """Its place in the order of the points, from 0."""
        return self._order[point.name]

    def over(self) -> bool:
        """Whether nothing is left to wait for, after `next` had none.

        What another worker holds is its own once it was seen to live: whoever waits on would idle.
        But a point that waits for a checkpoint of such a one is worth the wait.
        """
        held = set(self.left.held)
        return held <= self._alive and not (held and self.left.waiting)

    def stopped(self, states: Mapping[str, State]) -> bool:
        """Whether a point failed for good, and the rest is not to go on."""
        return self.folder.on_failure == "stop" and any(map(self.states.failed, states.values()))

    def done(self, point: Point, facts: Mapping[str, Any]) -> None:
        """The point's run has ended well."""
        self.states.write_done(point, facts)

    def failed(self, point: Point, facts: Mapping[str, Any]) -> None:
        """A try has failed; `facts` say why.

        Raises:
          UserError, RunError: that cannot be written down.
        """
        number = self._written(point, facts)
        tries = self.folder.retries + 1
        self._say(f"{point.name} failed, try {number + 1} of {tries}: {facts['why']}")

    def _written(self, point: Point, facts: Mapping[str, Any]) -> int:
        try:
            return self.states.write_failure(point, facts)
        except (UserError, RunError) as error:
            raise type(error)(f"{point.name} failed ({facts['why']}), and {error}") from error

    def busy(self, point: Point, why: str) -> None:
        """Somebody trains in its run directory without a claim."""
        self._busy.add(point.name)
        self._say(f"{point.name} is left alone: {why}")

    def check_versions(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises UserError where a worker of another switchx is at work on the sweep."""
        said = False
        strangers = list(self._points)
        while strangers := [name for name in strangers if self._is_strange(name)]:
            if not said:
                self._say(
                    f"{strangers[0]} is claimed by another version of switchx; watching for up to "
                    f"{EXPIRY:.0f} s whether its worker lives"
                )
            said = True
            sleep(POLL)

    def _is_strange(self, name: str) -> bool:
        found = self._claims.look(name)
        own, other = self._claims.maker, found.holder
        if found.next is not None or all(other.get(key) == own[key] for key in own):
            return False
        if found.alive:
            raise UserError(
                f"SWEEP_DIR={str(self.folder.path)!r} has {name} claimed by a worker of another "
                f"version, {_version(other)}, process {other.get('process', 'unknown')}, and this "
                f"is {_version(own)}: wait for its end or stop it, or start this one with its "
                "version."
            )
        return True

    def _to_do(self, states: Mapping[str, State]) -> list[Point]:
        """Those with fewer failures first: a point that fails is not to keep others waiting."""
        names = [n for n, s in states.items() if s.done is None and not self.states.failed(s)]
        names.sort(key=lambda name: (len(states[name].failures), self._order[name]))
        return [self._points[name] for name in names]

    def _ready(self, point: Point, states: Mapping[str, State]) -> bool:
        if point.name in self._busy:
            self.left.held[point.name] = "without a claim"
            self._alive.add(point.name)
            return False
        why = self._unfit(point)
        if why is not None:
            self.left.unfit[point.name] = why
            return False
        if point.fork is None or self._forkable(point):
            return True
        trunk = states.get(point.fork.point)
        if trunk is None or trunk.done is not None or self.states.failed(trunk):
            return True  # from scratch: what it waited for will not come
        self.left.waiting[point.name] = point.fork.point
        return False

    def _note(self, point: Point, found: Look) -> None:
        holder = found.holder.get("process", "another worker")
        self.left.held[point.name] = str(holder)
        if found.alive:
            self._alive.add(point.name)


def _version(maker: Mapping[str, Any]) -> str:
    return f"switchx {maker.get('switchx', 'unknown')} ({maker.get('code', 'unknown')})"
