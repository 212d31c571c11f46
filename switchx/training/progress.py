"""How far a run is: a bar on a terminal, one plain line per row of metrics elsewhere."""

import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from switchx import hosts


class Progress:
    """Shows the steps of a run.

    Args:
      total_steps: the run's last step.
      start_step: the step it starts or resumes from.
      stream: where to show it, by default standard error; a bar is drawn if it is a terminal.
    """

    def __init__(self, total_steps: int, start_step: int = 0, stream: TextIO | None = None):
        self._total = total_steps
        # Of several hosts the first one speaks.
        shown = sys.stderr if hosts.is_first() else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream = shown if stream is None else stream
        self._bar: Any = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps,
                initial=start_step,
                file=self._stream,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
            )

    def update(self, step: int, scalars: Mapping[str, float] | None = None) -> None:
        """Says that `step` is done. A row's `scalars` are shown, with the time left."""
        if self._bar is not None:
            self._update_bar(step, scalars or {})
        elif scalars:
            self.message(self._line(step, scalars))

    def message(self, text: str) -> None:
        """Prints a line above the bar, or among the lines."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _update_bar(self, step: int, scalars: Mapping[str, float]) -> None:
        if scalars:
            self._bar.set_postfix_str(", ".join(_parts(scalars)), refresh=False)
        self._bar.update(step - self._bar.n)

    def _line(self, step: int, scalars: Mapping[str, float]) -> str:
        width = len(str(self._total))
        parts = [f"step {step:>{width}}/{self._total}", *_parts(scalars)]
        speed = scalars.get("steps_per_second", 0.0)
        if speed > 0:
            parts.append(f"eta {clock((self._total - step) / speed)}")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or as hours, minutes and seconds: 3:07, 26:03:07."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def columns(values: Mapping[str, float], width: int = 96) -> list[str]:
    """Names and numbers in lines, as many of them side by side as fit."""
    longest = max(map(len, values), default=0)
    cells = [f"{name:<{longest}}  {value:.4f}" for name, value in values.items()]
    per_line = max(1, width // (longest + 11))
    return [
        "    ".join(cells[first : first + per_line]) for first in range(0, len(cells), per_line)
    ]


def _parts(scalars: Mapping[str, float]) -> list[str]:
    parts = []
    if "loss" in scalars:
        parts.append(f"loss {scalars['loss']:.4f}")
    if "tokens_per_second" in scalars:
        parts.append(f"{scalars['tokens_per_second']:,.0f} tokens/s")
    return parts
