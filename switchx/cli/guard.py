"""Is the environment one that a command can run in? Asked before a library meets what is wrong.

What a variable makes a library do is told by its name, in one line; XLA, for one, ends the process
that it finds a wrong flag in.
"""

import os
import re
import resource
import sys
import tempfile
import traceback
from collections.abc import Mapping

from switchx.checks import UNFIT
from switchx.cli.flags import MOST_CPU_DEVICES
from switchx.errors import RunError, UserError, first_line

_TRUE = ("1", "on", "t", "true", "y", "yes")
_CPU_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_LIBRARY_WORDS = re.compile(r"^[FE]\d{4} [\d:.]+\s+\d+ \S+\] (.*)", re.M)  # as absl logs them


def check() -> None:
    """Raises UserError where the environment would end any command."""
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The working folder is no longer there: change to one that is, as with `cd ~`."
        ) from None
    try:
        tempfile.gettempdir()
    except OSError as error:  # also where disks are full
        raise UserError(
            f"Temporary files cannot be written ({error.strerror}): make room, or set TMPDIR to a "
            "folder that has some."
        ) from None


def check_computing(environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where it would end a command that computes."""
    for setting, (unfit, why) in UNFIT.items():
        name = setting.upper()
        value = environment.get(name, "").lower()
        if value in (_TRUE if unfit == (True,) else unfit):
            raise UserError(f"{name}={environment[name]} {why}: unset it.")
    flags, jaxs = environment.get("XLA_FLAGS", ""), environment.get("JAX_NUM_CPU_DEVICES", "")
    asked = [("XLA_FLAGS", flags, count) for count in _CPU_DEVICES.findall(flags)]
    asked += [("JAX_NUM_CPU_DEVICES", jaxs, jaxs)] * jaxs.isdecimal()
    for name, value, count in asked:
        if not 1 <= int(count) <= MOST_CPU_DEVICES:  # each takes memory and threads
            raise UserError(
                f"{name}={value} asks for {count} CPU devices: ask for 1 to {MOST_CPU_DEVICES}, or "
                "unset it."
            )
    said = _refused_flags(flags)
    if said is not None:
        raise UserError(
            f"XLA_FLAGS={flags} is not accepted by XLA ({said}): correct it, or unset it."
        )


def _refused_flags(flags: str) -> str | None:
    """What XLA says of flags that it refuses; None where it takes them.

    It would end this process: a copy of it is to end instead, made before there are any threads.
    """
    known = re.fullmatch(rf"\s*({_CPU_DEVICES.pattern})?\s*", flags)
    if known or "jax" in sys.modules:
        return None
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.dup2(writing, 2)
        try:
            from jaxlib import xla_client

            xla_client.make_cpu_client()
        finally:
            os._exit(0)  # also after an exception: then it is for whoever meets it next
    os.close(writing)
    with open(reading, "rb") as words:
        said = words.read().decode(errors="replace")
    _, status = os.waitpid(copy, 0)
    if status == 0:
        return None
    found = _LIBRARY_WORDS.search(said)
    return found[1][:200].rstrip(".") if found else "it ends the process"


def explained(error: Exception) -> UserError | RunError | None:
    """What in the environment a failure came of, in a sentence; None where that is not known."""
    return (
        _refused_variable(error)
        or _limited_memory(error)
        or _full_memory(error)
        or _missing_platform()
    )


def _limited_memory(error: Exception) -> UserError | None:
    """The sentence for a library that has no room within `ulimit -v`, as batch systems set it."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    there = isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError)
    if not there or most == resource.RLIM_INFINITY:
        return None
    return UserError(
        f"A library cannot be loaded ({first_line(error)}) within the {most // 2**20:,} MB of "
        "memory that this process may map: raise that, as with `ulimit -v unlimited`."
    )


def _full_memory(error: Exception) -> RunError | None:
    """The sentence for arrays that have no room, in a device or in this machine."""
    of_device = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    if not of_device and not isinstance(error, MemoryError):
        return None
    return RunError(
        f"There is not memory enough ({first_line(error)}): lower BATCH_SIZE or EVAL_BATCH_SIZE, "
        "raise MICROBATCHES, or lower --batch_size and --num_beams of answers; what was saved is "
        "whole."
    )


def _refused_variable(error: Exception) -> UserError | None:
    """JAX reads its variables when it is imported."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames[-1].filename.endswith("jax/_src/config.py"):
        return None
    said = str(error).lower()
    set_here = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    named = {n: v for n, v in set_here.items() if n.lower() in said or repr(v.lower()) in said}
    given = ", ".join(f"{name}={value}" for name, value in (named or set_here).items())
    return UserError(f"{given} is not accepted by JAX ({first_line(error)}): correct or unset it.")


def _missing_platform() -> UserError | None:
    """The sentence for a JAX_PLATFORMS of which JAX finds no device."""
    named = os.environ.get("JAX_PLATFORMS")
    if not named or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        why = f" ({str(error).splitlines()[0][:120]})" if str(error) else ""
        return UserError(
            f"JAX_PLATFORMS={named} names a platform that is not here{why}: unset it, or set it "
            "to cpu."
        )
    return None
