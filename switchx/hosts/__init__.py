"""Who takes part? The job, the meeting of its hosts, barriers, preemption."""

from switchx.hosts.interruption import Interruption
from switchx.hosts.joining import all_of, barrier, compiled_everywhere, is_first, joined

__all__ = ["Interruption", "all_of", "barrier", "compiled_everywhere", "is_first", "joined"]
