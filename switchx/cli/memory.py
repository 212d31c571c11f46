"""Huge pages for the process that computes."""

import os
import sys

_TUNABLE = "glibc.malloc.hugetlb=1"


def restart_with_huge_pages() -> None:
    """Starts this command again with glibc asking the kernel for huge pages, on Linux.

    XLA's CPU client takes its temporaries from the allocator and gives them back at every step;
    with small pages a step of the benchmark then spends a tenth of its time in page faults. TPU
    hosts load faster too. glibc reads the setting only when a process starts; one that is
    already set, to whatever value, is left alone.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = _TUNABLE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
