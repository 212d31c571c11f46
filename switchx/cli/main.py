"""The entry point: picks a command, and turns every mistake into one line and an exit status.

Nothing heavy is imported here, and a command's module only once it is chosen, so that
`switchx --help` is there at once.
"""

import argparse
import contextlib
import importlib
import keyword
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import ModuleType

import switchx
from switchx.cli import environment, guard
from switchx.cli.flags import Parser, add_common_arguments, rewrite_gin_flags
from switchx.errors import RunError, UserError
from switchx.terminal import remark

# Each is a module of this package with add_arguments(parser) and run(args) -> int | None.
COMMANDS = {
    "train": "train a model; without arguments, a small one on the embedded corpus",
    "data": "prepare, show, check and time what a model is fed; train a vocabulary",
    "eval": "measure a trained model on its validation split",
    "ablate": "measure what each part of a trained model is worth",
    "inspect": "what each expert of a trained model does, as a page",
    "infer": "fill blanks with a trained model",
    "info": "parameters, FLOPs and memory of a configuration",
    "plan": "what a run needs on chips that are not here: memory, network, time",
    "sweep": "a grid of runs: plan it, run it, watch it, report it",
    "compare": "what sets runs apart, in their settings and in their curves",
    "import": "make a run of a model that another program trained",
    "export": "write a trained model for another program",
    "convert-gin": "write gin files of T5X as one of switchx",
    "upcycle": "make the start of a switch model of a trained dense one",
    "prune": "make a run of a trained model with the experts alone that a task uses",
}
COMPUTE = ("train", "eval", "ablate", "inspect", "infer", "prune")
COMPUTE_TOO = (["sweep", "run"], ["data", "teach"])
NO_JAX = ("data", "info", "convert-gin")  # the other commands open its devices

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line. Returns 0, 2 for a mistake of the user, 1 for a run that could not go
    on, 128 and the signal's number for one that was stopped (130 after ctrl-C).

    Without `argv` this process is the command's own: what its libraries write is kept from the
    terminal. A caller with an `argv` keeps his streams and loggers as they are.
    """
    own = argv is None
    try:
        if own:
            sys.unraisablehook = _unraisable
            environment.collect_garbage_less()
            environment.prepare_streams()
            environment.prepare_libraries()
            if sys.argv[1:2] and (sys.argv[1] in COMPUTE or sys.argv[1:3] in COMPUTE_TOO):
                environment.restart_with_huge_pages()
        status = _dispatch(list(sys.argv[1:] if argv is None else argv), own)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _said(str(error), 2)
    except RunError as error:
        return _said(str(error), 1)
    except KeyboardInterrupt as interruption:
        why = f": {interruption}" if str(interruption) else ""
        return _said(f"interrupted{why}.", INTERRUPTED)
    except BrokenPipeError:
        return 0  # the reader of our output (`| head`) has seen enough
    finally:
        _let_go_of_closed_pipes()


def _said(sentence: str, status: int) -> int:
    remark(sentence)
    return status


def _let_go_of_closed_pipes() -> None:
    """What could not be written is dropped; at exit Python would complain and change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, RunError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(argv: list[str], own: bool) -> int:
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv or ["--help"])
        return 0
    module = f"{argv[0]}_" if keyword.iskeyword(argv[0]) else argv[0].replace("-", "_")
    command = importlib.import_module(f"switchx.cli.{module}")
    parser = Parser(prog=f"switchx {argv[0]}", description=f"{COMMANDS[argv[0]].capitalize()}.")
    add_common_arguments(parser)
    command.add_arguments(parser)
    given, beyond = _split(argv[1:])
    if beyond and argv[0] != "data":
        raise UserError(f"{beyond[0]!r} stands behind --, where `switchx {argv[0]}` takes nothing.")
    parser.set_defaults(beyond=beyond)  # Apache Beam's own flags
    args = parser.parse_args(rewrite_gin_flags(given))
    guard.check()
    environment.prepare_devices(args.cpu_devices)
    if own and (argv[0] not in NO_JAX or argv[:2] in COMPUTE_TOO):
        guard.check_computing()
    environment.prepare_compile_cache()
    args.log = environment.LibraryLog() if own and not args.verbose else None
    with contextlib.nullcontext() if own else environment.remarks_left_out():
        return _run(command, args)


def _run(command: ModuleType, args: argparse.Namespace) -> int:
    try:
        return command.run(args) or 0
    except UserError as error:
        raise UserError(args.explained(str(error)) if "explained" in args else error) from error
    except (BrokenPipeError, RunError):
        raise
    except Exception as error:
        explained = guard.explained(error)
        if explained:
            raise explained from error
        if args.log:
            args.log.explain()
        raise
    finally:
        if args.log:
            args.log.close()


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """What becomes of an error where nobody can catch it, as in a destructor."""
    if unraisable.exc_type is KeyboardInterrupt:
        # In JAX's hook of the garbage collector, say: lost, and the program would go on.
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        # That says TensorStore of each write that fails after the one that ended the save.
        sys.__unraisablehook__(unraisable)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before `--`, and those after it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _overview() -> Parser:
    """The parser for help; it knows the commands' names alone."""
    parser = Parser(
        prog="switchx",
        description="Pretrains Switch Transformers. `switchx COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"switchx {switchx.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose)
    return parser


if __name__ == "__main__":
    sys.exit(main())
