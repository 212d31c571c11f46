"""A profile of some of a run's steps: TensorBoard's trace, and what these steps spent time on."""

import contextlib
import dataclasses
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from switchx import hosts, storage
from switchx.errors import RunError, UserError, first_line
from switchx.training.profile_costs import PAUSE, STEP, Costs

FOLDER = "profile"  # in a run's directory: what TensorBoard is given
_SHOWN = 6  # operations that are shown; costs.txt has more


@dataclasses.dataclass(frozen=True)
class ProfileSteps:
    """Steps, numbered as in the metrics, from the first to the last."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "ProfileSteps":
        """Reads "10:15"; UserError where it says no steps."""
        found = re.fullmatch("([0-9]{1,18}):([0-9]{1,18})", str(text))
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--profile_steps={text} must be FIRST:LAST, the first at least 1 and the last no "
                "less, as in 10:15."
            )
        return cls(int(found[1]), int(found[2]))

    def check(self, train_steps: int, done: int) -> None:
        """Raises UserError where a run that has `done` steps does not come to these."""
        asked = f"--profile_steps={self.first}:{self.last}"
        if self.last > train_steps:
            raise UserError(f"{asked} goes beyond TRAIN_STEPS={train_steps}: name earlier steps.")
        if self.last <= done:
            raise UserError(
                f"{asked} lies before step {done}, from which the run goes on: name steps from "
                f"{done + 1} to TRAIN_STEPS={train_steps}."
            )


def pause(what: str) -> contextlib.AbstractContextManager:
    """Within, a trace shows that the steps wait for this."""
    return jax.profiler.TraceAnnotation(PAUSE + what)


class Profiler:
    """Traces the steps that are asked for, each host its own. Whatever fails, training goes on.

    Args:
      steps: None traces nothing.
      name: of the profile's folder, the same on all hosts.
      program: gives the compiled step's text, which says where each operation belongs.
      say: shows a line.
    """

    def __init__(
        self,
        steps: ProfileSteps | None,
        model_dir: str | Path,
        name: str,
        program: Callable[[], str],
        say: Callable[[str], None],
    ):
        self._steps, self._program, self._say = steps, program, say
        self._folder = storage.as_path(model_dir) / FOLDER
        self._name = name or time.strftime("%Y_%m_%d_%H_%M_%S", time.gmtime())
        self._scratch: tempfile.TemporaryDirectory | None = None  # while it traces

    def step(self, number: int, before: Any) -> contextlib.AbstractContextManager:
        """Within, a step is dispatched, and marked as this one where it is traced.

        Args:
          before: what the device computes still; a trace begins when that is there.
        """
        if self._steps is None or not self._steps.first <= number <= self._steps.last:
            return contextlib.nullcontext()
        if self._scratch is None:
            jax.block_until_ready(before)
            self._start()
        return jax.profiler.StepTraceAnnotation(STEP, step_num=number)

    def ends_at(self, number: int) -> bool:
        """Whether this is the last step of the trace: it is to be closed once that is done."""
        return self._steps is not None and number == self._steps.last

    def close(self) -> None:
        """Writes what was traced, if anything was. Nothing is traced after this."""
        self._steps, scratch, self._scratch = None, self._scratch, None
        if scratch is None:
            return
        with scratch as folder, self._failures_said():
            jax.profiler.stop_trace()
            self._write(Path(folder))

    def _start(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each Python call: a large trace, and slower steps
        with self._failures_said():
            jax.profiler.start_trace(scratch.name, profiler_options=options)
            self._scratch = scratch

    def _write(self, scratch: Path) -> None:
        folder = self._folder / "plugins" / "profile" / self._name
        (trace,) = scratch.rglob("*.xplane.pb")
        for file in (trace, *scratch.rglob("*.trace.json.gz")):
            kind = "xplane.pb" if file is trace else "trace.json.gz"
            with storage.whole_file(folder / f"host_{jax.process_index()}.{kind}") as part:
                shutil.copyfile(file, part)
        if not hosts.is_first():
            return
        program = self._program()
        costs = Costs.read(trace, program, jax.local_device_count())
        storage.write_whole(folder / "train_step.hlo.txt", program)
        storage.write_whole(folder / "costs.txt", "\n".join(costs.lines()) + "\n")
        for line in costs.lines(_SHOWN):
            self._say(line)
        self._say(
            f"the profile is in {folder}: see it by `tensorboard --logdir={self._folder}` (with "
            "the package xprof), or open a trace.json.gz of it in ui.perfetto.dev"
        )

    @contextlib.contextmanager
    def _failures_said(self):  # type: ignore[no-untyped-def]
        try:
            yield
        except (RunError, RuntimeError, OSError, ValueError) as error:
            self._steps = None
            self._say(f"there is no profile: {first_line(error)}")
