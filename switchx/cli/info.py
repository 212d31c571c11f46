"""switchx info: parameters, FLOPs and memory of a configuration."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, cast

from switchx.cli.flags import load_either
from switchx.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from switchx.planning.summary import Bytes, Summary
    from switchx.training.config import RunConfig

# What a run needs and its figures do not depend on, or hardly.
_NOT_NEEDED = {"MIXTURE_OR_TASK_NAME": "any", "TRAIN_STEPS": 1, "TFDS_DATA_DIR": None}
_NOT_NEEDED |= {"C4_JSON_TRAIN": None, "C4_JSON_VALIDATION": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx info`; those all commands share are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "A model is enough: --gin_file=configs/models/switch_c_2048.gin; --model_dir=RUN describes "
        "a run that was started."
    )


def run(args: argparse.Namespace) -> None:
    """Prints the figures."""
    from switchx.planning.summary import Summary

    settings = load_either(args, defaults=_NOT_NEEDED)
    summary = Summary.of(settings.run)
    problem = _problem(settings.run)
    if args.json:
        print(json.dumps(dataclasses.asdict(summary) | {"problem": problem}, indent=2))
    else:
        print("\n".join(_lines(settings.run, summary, problem)))


def _problem(run: "RunConfig") -> str | None:
    """Why this run would be refused on the mesh it names, if it would."""
    from switchx.planning.summary import abstract_mesh
    from switchx.training.checks import check_run

    mesh = abstract_mesh(run.mesh)
    if mesh is None:
        return None
    try:
        check_run(run, cast("Mesh", mesh))  # it asks for the sizes alone
    except UserError as error:
        return str(error)
    return None


def _lines(run: "RunConfig", summary: "Summary", problem: str | None) -> list[str]:
    lines = [
        *_parameters(summary),
        "",
        *_compute(run, summary),
        *_capacity(summary),
        "",
        *_memory(run, summary),
    ]
    return [*lines, "", f"This run would be refused: {problem}"] if problem else lines


def _parameters(summary: "Summary") -> list[str]:
    total = summary.num_parameters
    rows = [("parameters", total, "")]
    rows += [
        (f"  {name}", count, f"{count / total:7.1%}")
        for name, count in summary.parameters.items()
        if count
    ]
    rows.append(("  used by one token", summary.parameters_per_token, ""))
    return [
        f"{name:<24}{count:>22,}  {human(count, 'B'):>9}  {share}".rstrip()
        for name, count, share in rows
    ]


def _compute(run: "RunConfig", summary: "Summary") -> list[str]:
    batch = run.batch
    tokens = f"{batch.input_length} + {batch.target_length} tokens"
    forward, step = human(summary.forward_flops), human(summary.step_flops)
    return [
        f"{'FLOPs, forward':<24}{forward + 'FLOPs':>22}  a sequence of {tokens}",
        f"{'FLOPs, training step':<24}{step + 'FLOPs':>22}  {batch.batch_size:,} sequences",
    ]


def _capacity(summary: "Summary") -> list[str]:
    if not summary.capacity:
        return []
    lines = ["", f"{'expert capacity':<24}{'group':>12}{'training':>12}{'evaluation':>12}"]
    for stack, row in summary.capacity.items():
        lines.append(
            f"{'  ' + stack:<24}{row['group_size']:>12,}{row['train']:>12,}{row['eval']:>12,}"
        )
    return lines


def _memory(run: "RunConfig", summary: "Summary") -> list[str]:
    whole, part = summary.memory, summary.memory_per_device
    lines = [f"{'memory':<24}{'one copy':>12}{'per device':>12}  {run.mesh}"]
    for label, name in (
        ("parameters, float32", "parameters"),
        ("gradients", "gradients"),
        (f"{run.optimizer.name} state", "optimizer"),
        ("together", "total"),
    ):
        lines.append(f"{'  ' + label:<24}{_bytes(whole, name):>12}{_bytes(part, name):>12}")
    return [*lines, "  (activations come on top)"]


def _bytes(memory: "Bytes | None", name: str) -> str:
    return "-" if memory is None else human(getattr(memory, name)) + "B"


def human(count: float, billion: str = "G") -> str:
    """A count in thousands, with a decimal: "26.3 G"."""
    for unit in ("", "k", "M", billion, "T", "P"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit else f"{count:.0f} "
        count /= 1000
    return f"{count:,.1f} E"
