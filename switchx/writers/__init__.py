"""Where else do a run's figures go? TensorBoard and trackers of experiments, beside metrics.jsonl.

`metrics.jsonl` is the record, and not of this room: the trainer writes it, always, and cannot go on
without. A writer here gets each row once it is there, may fail, and never ends a run. Nothing of a
tracker's package is imported in the process that trains.
"""

from switchx.writers.group import Writers
from switchx.writers.names import WRITERS, check_installed, check_names
from switchx.writers.writer import RunFacts, Writer, check_writer

__all__ = [
    "WRITERS",
    "RunFacts",
    "Writer",
    "Writers",
    "check_installed",
    "check_names",
    "check_writer",
]
