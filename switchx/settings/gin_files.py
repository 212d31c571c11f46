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
from switchx.settings.gin_syntax import Binding, Include, read_text

# Where configs/ lies: at the top of a checkout, inside an installed package (see setup.py).
_PACKAGE = Path(switchx.__file__).resolve().parent
HOME = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads files relative to the working folder, then `search_paths`, then where switchx has its
    own configs/.

    A file that another includes is looked for beside that one first.
    """

    search_paths: Sequence[str] = ()

    def read_file(self, name: str, setting: str = "--gin_file") -> list[Binding]:
        """All bindings of a file and of those it includes.

        Raises:
          UserError: no such file, a syntax error, or a name that gin can set nothing by.
        """
        wanted_by = f"{setting}={name!r}"
        bindings = self._read(self.find(name, wanted_by), name, wanted_by, ())
        return [dataclasses.replace(binding, file=name) for binding in bindings]

    def find(self, name: str, wanted_by: str, beside: Path | None = None) -> Path:
        """The first file of that name, which need not be absolute; UserError where there is none.

        Args:
          wanted_by: the setting or line that names it.
          beside: a folder to look in before all others.
        """
        folders = self._folders() if beside is None else [beside, *self._folders()]
        if storage.is_remote(name):
            raise UserError(f"{wanted_by} is a URL: name a file on this machine.")
        named = storage.expanded(name)
        for folder in folders:
            path = folder / named  # an absolute path stays what it is
            with contextlib.suppress(OSError, ValueError):  # no name that a file can have
                if path.is_file():
                    return path
        places = " or ".join(map(str, dict.fromkeys(folders)))
        where = "" if os.path.isabs(name) else f" in {places}"
        raise UserError(f"{wanted_by} was not found{where}{_near_file(name)}.")

    def _read(
        self, path: Path, name: str, wanted_by: str, outer: tuple[Path, ...]
    ) -> Iterator[Binding]:
        if path.resolve() in outer:
            raise UserError(f"{wanted_by} includes itself.")
        text = storage.read_text(path, wanted_by).removeprefix("\ufeff")  # a byte order mark
        for part in read_text(text, name):
            if isinstance(part, Include):
                wanted = f"include {part.name!r} ({part.origin})"
                found = self.find(part.name, wanted, path.parent)
                is_beside = found == path.parent / part.name
                shown = os.path.join(os.path.dirname(name), part.name) if is_beside else part.name
                yield from self._read(found, shown, wanted, (*outer, path.resolve()))
            else:
                yield part

    def _folders(self) -> list[Path]:
        folders = [Path.cwd(), *map(Path, self.search_paths), HOME]
        return list(dict.fromkeys(folders))


def _near_file(name: str) -> str:
    files = sorted((HOME / "configs").glob("**/*.gin"))
    by_stem = {path.stem: path.relative_to(HOME) for path in files}
    close = difflib.get_close_matches(Path(name).stem, by_stem, n=3)
    return f": near it are {', '.join(str(by_stem[stem]) for stem in close)}" if close else ""
