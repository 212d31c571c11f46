"""The process that a command runs in: its libraries kept quiet, its streams able to say anything.

What C++ libraries write to file descriptor 2 and what Python's libraries log goes to a file, in
the run's directory where there is one: `sys.stderr` is the terminal still, but says only what is
switchx's own. `--verbose` leaves all as it is.
"""

import contextlib
import faulthandler
import gc
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.terminal import remark

LOG = "libraries.log"  # in a run's directory

_TUNABLE = "glibc.malloc.hugetlb=1"
_DEVICE_COUNT = "xla_force_host_platform_device_count"
_SHOWN = 30  # lines of the log shown after a crash, where it has no file


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


def prepare_devices(cpu_devices: int | None) -> None:
    """Makes JAX see that many CPU devices and nothing else. It must not have been used yet."""
    if cpu_devices is None:
        return
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _DEVICE_COUNT not in flag]
    os.environ["XLA_FLAGS"] = " ".join([*others, f"--{_DEVICE_COUNT}={cpu_devices}"])
    os.environ["JAX_PLATFORMS"] = "cpu"


def prepare_libraries() -> None:
    """What a user's environment says to programs that open windows is not for this one."""
    os.environ["MPLBACKEND"] = "agg"


def collect_garbage_less() -> None:
    """Has Python look for cycles after 50,000 new objects, not after every 700.

    Imports and tracing make a million that stay, and looking through them took a tenth of a start.
    """
    gc.set_threshold(50_000)


def prepare_compile_cache() -> None:
    """What one run compiled, the next one reads, unless the user's own environment says where."""
    root = os.path.expanduser(os.environ.get("SWITCHX_CACHE") or "~/.cache/switchx")
    if not root.startswith("~"):  # a user without a home folder has none
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(root, "xla"))
    # Small ones too: a run has forty of them, each quicker read than compiled.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def prepare_streams() -> None:
    """What the terminal cannot show is written as \\xe9; the program does not end of it."""
    _open_streams()
    output = io.BufferedWriter(_Output(1, "wb", closefd=False))
    sys.stdout = io.TextIOWrapper(output, sys.stdout.encoding, line_buffering=sys.stdout.isatty())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _open_streams() -> None:
    """Gives a process without standard streams streams that say and hear nothing.

    Else the next file opened would be standard error, and libraries would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


class _Output(io.FileIO):
    """Standard output, which takes all or is a reason to end."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise RunError(f"standard output cannot be written ({error.strerror}).") from error


@contextlib.contextmanager
def remarks_left_out() -> Iterator[None]:
    """Within, what Orbax and asyncio log of failures that we report ourselves is not printed."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # Orbax leaves what it was at unfinished where a file cannot be read or written.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class _Handler(logging.StreamHandler):
    """Where the log's disk is full its words are lost: they are not for the terminal instead."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name is its)
        """Says nothing."""


class LibraryLog:
    """Where the words of libraries go."""

    def __init__(self) -> None:
        """Diverts them, for the rest of this process, to a file without a name."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # of its errors inside pipelines, ours
        self._path: Path | None = None  # in the run's directory, on this machine
        self._url: Path | None = None  # there, in an object store
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (the process's, to its end)
        terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, buffering=1)
        terminal.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr = terminal
        faulthandler.enable(terminal)  # a library's abort would be in the log alone
        os.dup2(self._file.fileno(), 2)
        diverted = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        logging.basicConfig(handlers=[_Handler(diverted)], level=logging.WARNING)
        logging.captureWarnings(True)

    def move_to(self, model_dir: str, host: int = 0) -> None:
        """From now on they stand in the run's directory, those from before too.

        In an object store they are there from the end on; after a failure they are shown too.
        """
        path = storage.as_path(model_dir) / (LOG if host == 0 else f"libraries.{host}.log")
        if storage.is_remote(path):
            self._url = path
            return
        with contextlib.suppress(OSError), path.open("ab") as file:
            file.write(self._words())
            file.flush()
            os.dup2(file.fileno(), 2)
            self._path = path

    def leave(self) -> None:
        """What comes next is of no run yet, after one of several that a process trains."""
        if self._path is None and self._url is None:
            return
        self._settle()
        self._file.seek(0)
        self._file.truncate()
        os.dup2(self._file.fileno(), 2)
        self._path = self._url = None

    def explain(self) -> None:
        """Says, after a failure, where they are; where no file has them, says them."""
        self._upload()
        if self._path is not None:
            if self._path.stat().st_size:
                remark(f"what libraries said is in {self._path}")
            return
        for line in self._words().decode(errors="replace").splitlines()[-_SHOWN:]:
            print(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves no empty file behind; what comes at the process's end is nowhere."""
        self._settle()
        self._file.close()

    def _settle(self) -> None:
        self._upload()
        with contextlib.suppress(OSError):
            if self._path is not None and not self._path.stat().st_size:
                self._path.unlink()

    def _upload(self) -> None:
        """Adds them to what earlier starts left in an object store."""
        words = self._words()
        if self._url is not None and words:
            with contextlib.suppress(UserError, RunError):  # they are shown where it matters
                earlier = storage.read_if_there(self._url, "MODEL_DIR") or b""
                storage.write_whole(self._url, earlier + words)
            self._url = None

    def _words(self) -> bytes:
        self._file.seek(0)
        return self._file.read()
