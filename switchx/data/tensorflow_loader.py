"""Imports TensorFlow the way a JAX program needs it: quiet, and with its hands off accelerators."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from switchx import storage
from switchx.errors import UserError, first_line

# What TensorFlow's C++ side writes before it reads its own log settings.
_NOISE = re.compile(rb"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:|\s*$)")
T = TypeVar("T")
LIBRARY_SECONDS = 20.0  # of what a library reads with retries of its own


def load_tensorflow() -> Any:
    """Returns the `tensorflow` module, CPU only; the first call takes seconds."""
    if "tensorflow" not in sys.modules:
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") in (None, "1"):  # 1 is what importing jax sets
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        with _without_noise(), _import_errors():
            _import_all()
    import tensorflow as tf

    _hide_accelerators(tf)
    return tf


def within_limit(read: Callable[[], T], path: str, setting: str) -> T:
    """Returns read(), tried once: since TensorFlow retries for minutes by itself.

    Raises:
      UserError: it failed, or took longer than LIBRARY_SECONDS.
    """
    with storage.read_errors(path, setting):
        return storage.in_time(read, LIBRARY_SECONDS)


@contextlib.contextmanager
def _import_errors() -> Iterator[None]:
    """Within, what keeps a library from being imported becomes one sentence.

    Raises:
      UserError: it is a thing of the environment, as its own packages are.
    """
    try:
        yield
    except Exception as error:  # any of hundreds of modules
        why = f"{type(error).__name__}: {first_line(error)}"
        if sys.flags.optimize > 1:
            raise UserError(
                f"PYTHONOPTIMIZE={sys.flags.optimize} takes the docstrings away, without which "
                f"TensorFlow Text cannot be imported ({why}): unset it, or set it to 1."
            ) from error
        raise UserError(
            f"TensorFlow and seqio cannot be imported ({why}): install switchx with its own "
            "versions of them, in an environment of its own."
        ) from error


def _import_all() -> None:
    # seqio and t5 are always needed next, and print while TensorFlow wakes up inside them.
    import seqio  # noqa: F401
    import tensorflow

    _hide_accelerators(tensorflow)
    tensorflow.get_logger().setLevel("ERROR")
    tensorflow.constant(0)  # the CPU device reports itself at its first use


def _hide_accelerators(tf: Any) -> None:
    for kind in ("GPU", "TPU"):
        # Already in use: then another library chose to, and it is too late to hide anything.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], kind)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Holds back what goes to file descriptor 2, then passes on all but TensorFlow's noise."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(terminal, line)
            os.close(terminal)
