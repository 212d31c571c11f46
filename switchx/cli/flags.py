"""Flags that all commands share, in T5X's notation."""

import argparse
import difflib
import os
from pathlib import Path
from typing import NoReturn

from switchx.errors import UserError

_DEVICE_COUNT = "xla_force_host_platform_device_count"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that states a mistake in one sentence, without the usage above it."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]} (see `{self.prog} --help`).")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UserError(f"Unknown argument {unknown[0]!r}{self._advice(unknown[0])}.")
        return parsed

    def _advice(self, unknown: str) -> str:
        flags = [*self._option_string_actions, "--gin."]
        close = difflib.get_close_matches(unknown.split("=")[0], flags, n=1)
        if close:
            return f"; the nearest is {close[0]}"
        if unknown.startswith("--"):
            return "; settings are given as --gin.NAME=VALUE"
        return f" (see `{self.prog} --help`)"


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of every command."""
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="PATH",
        help="a configuration file; repeat for several, the last one to set a value wins",
    )
    parser.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="sets a macro or parameter after all files; also written --gin.NAME=VALUE, as in "
        "--gin.BATCH_SIZE=64 or --gin.ModelConfig.d_model=256",
    )
    parser.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIR,DIR",
        help="more folders in which gin files are looked for",
    )
    parser.add_argument(
        "--model_dir",
        metavar="DIR",
        help="the run's directory, as --gin.MODEL_DIR (default: one under runs/)",
    )
    parser.add_argument(
        "--cpu_devices",
        type=_positive,
        metavar="N",
        help="compute on N simulated CPU devices, to try a mesh out",
    )


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of commands that run on several hosts."""
    group = parser.add_argument_group(
        "several hosts", "the same command on each; TPU pods, srun and mpirun need no flags"
    )
    add = group.add_argument
    add("--coordinator_address", metavar="HOST:PORT", help="of process 0, which all can reach")
    add("--num_processes", type=int, metavar="N", help="processes in all")
    add("--process_id", type=int, metavar="I", help="this one's number, from 0")
    add(
        "--start_timeout",
        type=int,
        default=300,
        metavar="SECONDS",
        help="in which all must have started (%(default)s)",
    )


def rewrite_gin_flags(argv: list[str]) -> list[str]:
    """Turns T5X's --gin.NAME=VALUE into --gin_bindings=NAME=VALUE, which argparse can read."""
    return [_rewrite(argument) for argument in argv]


def _rewrite(argument: str) -> str:
    if not argument.startswith("--gin."):
        return argument
    name, equals, value = argument.removeprefix("--gin.").partition("=")
    if not (name and equals and value):
        raise UserError(f"{argument} needs a name and a value, as in --gin.BATCH_SIZE=64.")
    return f"--gin_bindings={name}={value}"


def prepare_devices(cpu_devices: int | None) -> None:
    """Makes JAX see that many CPU devices and nothing else. It must not have been used yet."""
    if cpu_devices is None:
        return
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _DEVICE_COUNT not in flag]
    os.environ["XLA_FLAGS"] = " ".join([*others, f"--{_DEVICE_COUNT}={cpu_devices}"])
    os.environ["JAX_PLATFORMS"] = "cpu"


def prepare_compile_cache() -> None:
    """What one run compiled, the next one reads, unless the user's own environment says where."""
    root = Path(os.environ.get("SWITCHX_CACHE") or "~/.cache/switchx").expanduser()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--cpu_devices={text} must be a whole number of at least 1.")
    return int(text)
