"""Who takes part? The job, the meeting of its hosts, barriers, preemption."""

from switchx.hosts.interruption import Interruption, asked_to_stop
from switchx.hosts.joining import all_of, announced, barrier, compiled_everywhere, is_first, joined

__all__ = [
    "Interruption",
    "all_of",
    "announced",
    "asked_to_stop",
    "barrier",
    "compiled_everywhere",
    "is_first",
    "joined",
]
