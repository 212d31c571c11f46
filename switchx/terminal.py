"""What is shown to a person alike everywhere: tables, remarks, and how far long work is."""

import contextlib
import errno
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
_GONE = (errno.EPIPE, errno.EIO)  # of a pipe that nobody reads, of a terminal that was closed


def table(rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> list[str]:
    """Lines of aligned columns; words stand left, numbers right, below the head that the first is.

    Whole numbers get commas, others four decimals; a text that ends in % is a number too.

    Args:
      numbers: columns that stand right though their numbers have units.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    columns = enumerate(zip(*(rows[1:] or rows), strict=True))
    is_number = [index in numbers or all(map(_is_number, column)) for index, column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in cells
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or value == "" or str(value).endswith("%")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def remark(sentence: str) -> None:
    """Says something beside what was asked for: a line of standard error, if anybody reads it."""
    with contextlib.suppress(OSError):  # of a pipe or a terminal that is closed, of a full disk
        print(f"switchx: {sentence}", file=sys.stderr, flush=True)


def counted(number: int, name: str) -> str:
    """A number of things: 1 host, 2,048 devices."""
    return f"{number:,} {name}{'s' if number != 1 else ''}"


def side_by_side(values: Mapping[str, float], width: int = 96) -> list[str]:
    """Names and numbers in lines, as many pairs to a line as fit."""
    longest = max(map(len, values), default=0)
    cells = [f"{name:<{longest}}  {_cell(value)}" for name, value in values.items()]
    per_line = max(1, width // (longest + 11))
    return [
        "    ".join(cells[first : first + per_line]) for first in range(0, len(cells), per_line)
    ]


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or as hours, minutes and seconds: 3:07, 26:03:07."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class Progress:
    """How far something is: a bar on a terminal; elsewhere a plain line where there is news.

    `gone` turns true once nobody can read it any more.

    Args:
      total: of the units that are to be done; None where it is not known.
      unit: their name.
      done: before this began.
      stream: standard error by default.
      shown: whether to show anything at all.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        done: int = 0,
        stream: TextIO | None = None,
        shown: bool = True,
    ):
        self.total, self._unit, self._done, self.gone = total, unit, done, False
        self._stream = (stream or sys.stderr) if shown else None
        self._bar: Any = None
        if self._stream is not None and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                file=self._stream,
                unit=f" {unit}",
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, news: Sequence[str] = (), rate: float = 0.0) -> None:
        """Says how much is done.

        Args:
          news: to be shown with it; without a terminal nothing is shown but for news.
          rate: units a second, from which the time left is told.
        """
        self._done = done
        if self._bar is None:
            if news:
                self.message(self._line(news, rate))
            return
        self._bar.total = self.total
        if news:
            self._bar.set_postfix_str(", ".join(news), refresh=False)
        self._show(lambda: self._bar.update(done - self._bar.n))

    def advance(self, count: int = 1) -> None:
        """Says that so many more are done."""
        self.update(self._done + count)

    def message(self, text: str) -> None:
        """Prints a line above the bar, or among the lines."""
        if self._bar is not None:
            self._show(lambda: self._bar.write(text, file=self._stream))
        elif self._stream is not None:
            self._show(lambda: print(text, file=self._stream, flush=True))

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._show(self._bar.close)

    def _line(self, news: Sequence[str], rate: float) -> str:
        of = "" if self.total is None else f"/{self.total}"
        parts = [f"{self._unit} {self._done:>{max(len(of) - 1, 0)}}{of}", *news]
        if rate > 0 and self.total is not None:
            parts.append(f"eta {clock(max(self.total - self._done, 0) / rate)}")
        return "  ".join(parts)

    def _show(self, write: Any) -> None:
        try:
            write()
        except OSError as error:  # what cannot be shown must not end what is done
            self.gone |= error.errno in _GONE


class Redrawn:
    """Lines that take the place of those shown before, on a terminal.

    Args:
      stream: a terminal, standard output by default.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._height = 0

    def show(self, lines: Sequence[str]) -> None:
        """Shows them; what a terminal has no room for is left out, the last lines last."""
        columns, rows = shutil.get_terminal_size()
        if len(lines) >= rows:
            kept = max(rows - 3, 1)
            lines = [*lines[: kept // 2], "...", *lines[len(lines) - kept + kept // 2 :]]
        up = f"\x1b[{self._height}A\r" if self._height else ""
        text = "".join(f"{line[: columns - 1]}\x1b[K\n" for line in lines)
        self._stream.write(f"{up}{text}\x1b[J")
        self._stream.flush()
        self._height = len(lines)


def tracked(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The items, with a bar where there is a terminal to show how many have been taken."""
    with Progress(total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
