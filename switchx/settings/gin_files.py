"""Finds and reads gin files, and those they include."""

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import switchx
from switchx import storage
from switchx.errors import UserError
from switchx.settings.gin_syntax import Binding, Include, Part, Wrong, own, read_text
from switchx.settings.t5x import files as t5x_files

# Where configs/ lies: at the top of a checkout, inside an installed package (see setup.py).
_PACKAGE = Path(switchx.__file__).resolve().parent
HOME = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads files relative to the working folder, then `search_paths`, then where switchx has its
    own configs/. Files and folders may lie at URLs.

    A file that another includes is looked for beside that one first.
    """

    search_paths: Sequence[str] = ()
    _texts: dict[Path, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def read_file(self, name: str, setting: str = "--gin_file") -> list[Binding]:
        """All bindings of a file and of those it includes.

        Raises:
          UserError: no such file, a syntax error, or a name that gin can set nothing by.
        """
        return [own(part) for part in self.read_parts(name, setting)]

    def read_parts(self, name: str, setting: str = "--gin_file") -> list[Part]:
        """What a file and those that it includes say, be it of switchx or of T5X.

        Mistakes in them stand among the parts; an Include does not.
        """
        wanted_by = f"{setting}={name!r}"
        parts = self._named(name, name, setting, wanted_by, None, ())
        return [
            dataclasses.replace(part, file=name) if isinstance(part, Binding) else part
            for part in parts
        ]

    def find(self, name: str, setting: str, wanted_by: str, beside: Path | None = None) -> Path:
        """The first file of that name, which need not be absolute; UserError where there is none.

        Args:
          setting: what names it, as "--gin_file"; wanted_by: the same with the name.
          beside: a folder to look in before all others.
        """
        path = storage.as_path(name, setting)
        found = self._found(path, wanted_by, beside)
        if found is not None:
            return found
        if storage.is_remote(path):
            raise UserError(f"{wanted_by} was not found: see that its bucket and name are right.")
        places = " or ".join(map(str, dict.fromkeys(self._folders(beside))))
        if any(os.path.isdir(_below(folder, path)) for folder in self._folders(beside)):
            raise UserError(
                f"{wanted_by} is a folder: name a file in it, of a run's directory "
                f"{os.path.join(name, 'config.gin')!r}."
            )
        where = "" if path.is_absolute() else f" in {places}"
        raise UserError(f"{wanted_by} was not found{where}{_near_file(name)}.")

    def _found(self, path: Path, wanted_by: str, beside: Path | None) -> Path | None:
        if storage.is_remote(path):
            return path if self._is_file(path, wanted_by) else None
        for folder in self._folders(beside):
            found = _below(folder, path)
            with contextlib.suppress(OSError, ValueError):  # no name that a file can have
                if self._is_file(found, wanted_by):
                    return found
        return None

    def text(self, path: Path, wanted_by: str) -> str:
        """What a file holds; one at a URL is read once."""
        if path not in self._texts:
            return storage.read_text(path, wanted_by)
        return self._texts[path]

    def _is_file(self, path: Path, wanted_by: str) -> bool:
        """At a URL it is read at once: a question of its own would take as long."""
        if not storage.is_remote(path):
            return path.is_file()
        if path not in self._texts:
            content = storage.read_if_there(path, wanted_by)
            if content is None:
                return False
            self._texts[path] = storage.as_text(content, path, wanted_by)
        return True

    def _named(
        self,
        name: str,
        shown: str,
        setting: str,
        wanted_by: str,
        beside: Path | None,
        outer: tuple[Path, ...],
    ) -> Iterator[Part]:
        """The parts of a file that is here, else those that it has as a file of T5X."""
        if self._found(storage.as_path(name, setting), wanted_by, beside) is None:
            known = t5x_files.known(name)
            if known is not None:
                yield from known
                return
        try:
            path = self.find(name, setting, wanted_by, beside)
        except UserError as error:
            yield Wrong(str(error))
            return
        if beside is not None and path == _below(beside, Path(name)):
            shown = os.path.join(os.path.dirname(shown), name)
        else:
            shown = name
        yield from self._read(path, shown, wanted_by, outer)

    def _read(
        self, path: Path, name: str, wanted_by: str, outer: tuple[Path, ...]
    ) -> Iterator[Part]:
        own = path if storage.is_remote(path) else path.resolve()
        if own in outer:
            between = "".join(f" by way of {file.name}" for file in outer[outer.index(own) + 1 :])
            yield Wrong(f"{wanted_by} includes itself{between}.")
            return
        text = self.text(path, wanted_by).removeprefix("\ufeff")  # a byte order mark
        for part in read_text(text, name):
            if isinstance(part, Include):
                setting = f"include ({part.origin})"
                wanted = f"include {part.name!r} ({part.origin})"
                inner = (*outer, own)
                yield from self._named(part.name, name, setting, wanted, path.parent, inner)
            else:
                yield part

    def _folders(self, beside: Path | None = None) -> list[Path]:
        searched = [storage.as_path(path, "--gin_search_paths") for path in self.search_paths]
        first = [] if beside is None else [beside]
        return list(dict.fromkeys([*first, Path.cwd(), *searched, HOME]))


def _below(folder: Path, path: Path) -> Path:
    """A path as seen from a folder; an absolute one stays what it is."""
    if path.is_absolute() or not storage.is_remote(folder):
        return folder / path
    for part in path.parts:  # at a URL no name means the folder above
        folder = folder.parent if part == ".." else folder / part
    return folder


def _near_file(name: str) -> str:
    why = t5x_files.refusal(name)
    if why is not None:
        return f", and is {why}"
    if name.startswith(("t5x/", "flaxformer/")):
        return ": it is T5X's own, so name the folder of a checkout with --gin_search_paths"
    files = sorted((HOME / "configs").glob("**/*.gin"))
    by_stem = {path.stem: path.relative_to(HOME) for path in files}
    close = difflib.get_close_matches(Path(name).stem, by_stem, n=3)
    return f": near it are {', '.join(str(by_stem[stem]) for stem in close)}" if close else ""
