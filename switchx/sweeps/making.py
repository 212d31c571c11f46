"""Makes a sweep's folder of its statement, or brings the folder up to a changed one."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.settings import Request
from switchx.sweeps import points, statement
from switchx.sweeps.folder import FILE, Point, SweepFolder
from switchx.sweeps.points import Resolved
from switchx.sweeps.saved_gin import HEADER, SAVED

_AT_ONCE = 16  # requests to a bucket


@dataclasses.dataclass(frozen=True)
class Made:
    """A sweep that was resolved, and how its folder stands to it.

    Attributes:
      folder: as it will be, or is once `write` was called.
      resolved: its points with their settings, as `folder.points`.
      new: names of points that the folder did not have.
      gone: names of those it has, and that no longer belong.
      texts: of sweep.gin, and of what it needs.
    """

    folder: SweepFolder
    resolved: tuple[Resolved, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]
    texts: Mapping[str, str]

    def write(self) -> None:
        """Writes what is not there yet: each config.gin, then sweep.gin and sweep.json.

        Any number of processes may do so at once for the same sweep.

        Raises:
          UserError: the folder cannot be written.
        """
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._write_config, self.resolved))
            for name, text in self.texts.items():
                _write_other(self.folder.path / name, text)
            _write_other(self.folder.path / FILE, self.folder.text())
        except RunError as error:
            raise UserError(
                f"SWEEP_DIR={str(self.folder.path)!r} cannot be used: {error}"
            ) from error

    def _write_config(self, resolved: Resolved) -> None:
        path = self.folder.config_file(resolved.point)
        if not storage.is_file(path, "SWEEP_DIR"):
            storage.write_whole(path, resolved.config_text(str(path.parent)))

    def changes(self) -> list[str]:
        """Lines on what is new in the folder, and what does not belong to it any more."""
        lines = []
        if self.new and len(self.new) < len(self.resolved):
            lines.append(f"new since the sweep was last planned: {', '.join(self.new)}")
        if self.gone:
            lines.append(
                f"no longer points of the sweep: {', '.join(self.gone)} (their folders stay)"
            )
        return lines


def make(request: Request, sweep_dir: str | None = None) -> Made:
    """Resolves a sweep and compares it with what its folder holds. Writes nothing.

    Without a gin file it is the one that its folder keeps.

    Raises:
      UserError: for a mistake in the sweep, a folder of another one, or one changed by hand.
    """
    if not request.gin_files and sweep_dir is not None:
        kept = SweepFolder.open(sweep_dir).path / SAVED
        request = dataclasses.replace(request, gin_files=(str(kept),))
    stated = statement.read(request, sweep_dir)
    resolved = points.resolve(stated)
    path = storage.writable_path(stated.directory, "SWEEP_DIR")
    storage.check_bucket(path, "SWEEP_DIR")
    before = SweepFolder.there(path, "SWEEP_DIR")
    resolved = _with_names(resolved, path)
    folder = SweepFolder(
        path=path,
        name=stated.name,
        points=tuple(each.point for each in resolved),
        retries=stated.config.retries,
        on_failure=stated.config.on_failure,
        order=stated.config.order,
        counted=tuple(stated.config.counted),
    )
    now = {point.name for point in folder.points}
    listed = {point.name for point in before.points} if before else set()
    if before is not None:
        _check_same_sweep(before, folder)
    elif storage.is_file(path / "config.gin", "SWEEP_DIR"):
        raise UserError(
            f"SWEEP_DIR={str(path)!r} is the directory of a run: give the sweep a folder of its "
            "own with --sweep_dir."
        )
    _check_untouched(folder)
    _check_own(path, stated.texts)
    return Made(
        folder,
        tuple(resolved),
        new=tuple(point.name for point in folder.points if point.name not in listed),
        gone=tuple(sorted(listed - now)),
        texts=stated.texts,
    )


def _with_names(resolved: Sequence[Resolved], path: Path) -> list[Resolved]:
    """The same, each under the name that its folder has already, though axes may have changed."""
    known = {
        name.rpartition("_")[2]: name
        for name in sorted(storage.names_in(path / "points", "SWEEP_DIR"))
    }
    names = {
        each.point.name: known.get(each.point.config[:8], each.point.name) for each in resolved
    }

    def named(each: Resolved) -> Resolved:
        point, fork = each.point, each.point.fork
        if fork is not None:
            fork = dataclasses.replace(fork, point=names[fork.point])
        point = dataclasses.replace(point, name=names[point.name], fork=fork)
        return dataclasses.replace(each, point=point)

    return [named(each) for each in resolved]


def _check_same_sweep(before: SweepFolder, folder: SweepFolder) -> None:
    where = f"SWEEP_DIR={str(folder.path)!r}"
    if before.name != folder.name:
        raise UserError(
            f"{where} is the folder of another sweep, {before.name!r}, and this is "
            f"{folder.name!r}: name another with --sweep_dir."
        )
    if {point.config for point in before.points} & {point.config for point in folder.points}:
        return
    if storage.names_in(folder.path / "state", "SWEEP_DIR"):
        raise UserError(
            f"{where} is the folder of a sweep {before.name!r} that has been run and shares no "
            "point with this one: name another folder with --sweep_dir."
        )


def _check_untouched(folder: SweepFolder) -> None:
    """Raises UserError where a point's config.gin is there and is not what it was."""

    def check(point: Point) -> None:
        path = folder.config_file(point)
        content = storage.read_if_there(path, "SWEEP_DIR")
        if content is not None and points.digest(content.decode(errors="replace")) != point.config:
            raise UserError(
                f"SWEEP_DIR leads to {str(path)!r}, which is not what the sweep wrote there: "
                "remove the file to have it written again, and change settings in the sweep's gin "
                "file alone."
            )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(check, folder.points))


def _check_own(path: Path, texts: Mapping[str, str]) -> None:
    """Raises UserError where a file of a name that the sweep writes is the user's own."""
    for name, text in texts.items():
        content = storage.read_if_there(path / name, "SWEEP_DIR")
        if content not in (None, text.encode()) and not content.startswith(HEADER.encode()):
            raise UserError(
                f"SWEEP_DIR={str(path)!r} has a {name} that no sweep wrote, and this one would: "
                "name another folder with --sweep_dir, or rename the file."
            )


def _write_other(path: Path, text: str) -> None:
    """Writes a file that is not yet so."""
    if storage.read_if_there(path, "SWEEP_DIR") != text.encode():
        storage.write_whole(path, text)
