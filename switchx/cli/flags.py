"""Flags that all commands share, in T5X's notation."""

import argparse
import difflib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from switchx.errors import UserError
from switchx.terminal import remark

if TYPE_CHECKING:
    from switchx.settings import Request, Settings

MOST_CPU_DEVICES = 1024  # each has threads of its own
_START_TIMEOUT = 300  # seconds


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that states a mistake in one sentence, without the usage above it."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        no_number = re.fullmatch("argument (.*): invalid (int|float) value: (.*)", message)
        if no_number is not None:
            flag, kind, value = no_number.groups()
            number = "a whole number" if kind == "int" else "a number"
            raise UserError(f"{flag}={value} must be {number}.")
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
            return f": the nearest is {close[0]}"
        if unknown.startswith("--"):
            return ": settings are given as --gin.NAME=VALUE"
        folder = "--sweep_dir" if "--sweep_dir" in flags else "--model_dir"
        named = {".gin": "--gin_file", "": folder}.get(os.path.splitext(unknown)[1])
        if named in flags:
            return f": give it as {named}={unknown}"
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
    parser.add_argument(
        "--verbose", action="store_true", help="show what libraries log, instead of keeping it"
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
        default=_START_TIMEOUT,
        metavar="SECONDS",
        help="in which all must have started (%(default)s)",
    )


def check_one_host(args: argparse.Namespace, command: str) -> None:
    """Raises UserError where flags of several hosts are given to what runs on one."""
    unset = {"coordinator_address": None, "num_processes": None, "process_id": None}
    for flag, value in {**unset, "start_timeout": _START_TIMEOUT}.items():
        if getattr(args, flag) != value:
            raise UserError(
                f"--{flag}={getattr(args, flag)} is for several hosts, and `{command}` runs on "
                "one: leave it out."
            )


# Which actions of a command take a flag, and how argparse reads it.
ActionFlags = Mapping[str, tuple[tuple[str, ...], dict[str, Any]]]


def add_action_flags(parser: Any, flags: ActionFlags) -> None:
    """Adds flags of a command's actions, each with the names of these before its help."""
    for flag, (actions, how) in flags.items():
        parser.add_argument(flag, **{**how, "help": f"{', '.join(actions)}: {how['help']}"})


def check_action_flags(args: argparse.Namespace, command: str, flags: ActionFlags) -> None:
    """Raises UserError for a flag that the chosen action would ignore."""
    for flag, (actions, how) in flags.items():
        unset = False if how.get("action") == "store_true" else how.get("default")
        if args.action not in actions and getattr(args, flag.removeprefix("--")) != unset:
            raise UserError(f"{flag} is not for `switchx {command} {args.action}`: leave it out.")


def check_no_settings(args: argparse.Namespace, command: str, read: str) -> None:
    """Raises UserError where a run's settings are given to a command that reads none.

    Args:
      read: what it reads in their place.
    """
    names = {"--gin_file": args.gin_file, "--gin_search_paths": args.gin_search_paths}
    given = [f"{name}={value}" for name, value in names.items() if value]
    given += [f"--gin.{binding}" for binding in args.gin_bindings]
    given += [f"--model_dir={args.model_dir}"] * (args.model_dir is not None)
    if given:
        raise UserError(
            f"{given[0]} does nothing in `switchx {command}`, which reads {read}: leave it out."
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


def request(args: argparse.Namespace) -> "Request":
    """What the common flags ask for."""
    from switchx.settings import Request, read_flag

    return Request(
        gin_files=tuple(args.gin_file),
        bindings=tuple(read_flag(flag) for flag in args.gin_bindings),
        search_paths=tuple(path for path in args.gin_search_paths.split(",") if path),
        model_dir=args.model_dir,
    )


def load(
    args: argparse.Namespace,
    defaults: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> "Settings":
    """The settings of a new run, or of one that is continued by naming its configuration."""
    return _load(args, {}, request(args), defaults, model)


def load_run(args: argparse.Namespace, reads_data: bool = True) -> "Settings":
    """Those of a run that left something behind, by default runs/quickstart."""
    return _load(args, {"objective": reads_data}, request(args).of_run())


def load_evaluated(args: argparse.Namespace) -> "Settings":
    """The same, with the whole split to evaluate on, but where a flag says how much of it."""
    return _load(args, {}, request(args).of_run().of_whole_split())


def load_either(
    args: argparse.Namespace, defaults: Mapping[str, Any] | None = None, **compared: bool
) -> "Settings":
    """Those of a run that --model_dir names alone, else as `load`.

    Args:
      compared: as of `switchx.settings.check_fits`; a model that was named counts.
    """
    asked = request(args)
    asked = asked if asked.named_dir is None else asked.of_run()
    compared["model"] = compared.get("model", True) or bool(asked.gin_files)
    return _load(args, compared, asked, defaults)


def _load(args: argparse.Namespace, compared: Mapping[str, bool], *given: Any) -> "Settings":
    from switchx import settings

    loaded = settings.load(*given)
    for line in loaded.theirs:
        remark(line)
    args.explained = loaded.gin.explained  # for what refuses its values later
    settings.check_fits(loaded, **compared)
    return loaded


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_CPU_DEVICES:
        raise UserError(
            f"--cpu_devices={text} must be a whole number from 1 to {MOST_CPU_DEVICES}."
        )
    return int(text)
