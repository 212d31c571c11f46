"""From a command line to a run: which gin is read, and what comes of it."""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx.data.config import DataConfig, check_values
from switchx.errors import UserError
from switchx.settings.gin_files import Binding, Reader, read_flag
from switchx.settings.gin_values import MODEL_DIR, GinConfig
from switchx.settings.given_model import check_model, model_bindings
from switchx.training.config import BatchShape, RunConfig

BASE = "configs/base.gin"
DEFAULT_RUN = "configs/runs/quickstart.gin"
SAVED = "config.gin"  # in a run's directory, written by the trainer

_TASK = "MIXTURE_OR_TASK_NAME"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a command line asks for.

    Attributes:
      run: what the compiled step depends on.
      data: what it is fed.
      model_dir: where the run's files lie.
      resolved: gin that gives these settings when read as the only --gin_file.
    """

    run: RunConfig
    data: DataConfig
    model_dir: str
    resolved: str


def load(
    args: argparse.Namespace,
    defaults: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Settings:
    """Reads configs/base.gin, the gin files in their order, then the flags.

    Args:
      args: of `flags.add_common_arguments`.
      defaults: values for required macros that the command can do without.
      model: parameters of a model that is there already (`switchx.interop.Source.model_fields`),
        in the place of a gin file that names one.

    Raises:
      UserError: for the first mistake in any of it.
    """
    bindings = _read(args, model or {})
    config = GinConfig.of(bindings)
    config.check_all_used()
    check_model(config, model or {})
    config = config.with_defaults(**(defaults or {}))
    data = config.build("DataConfig")
    run = _run_config(config, data)
    model_dir = config.macro(MODEL_DIR) or _default_model_dir(bindings, data)
    if not isinstance(model_dir, str):
        raise UserError(f"MODEL_DIR={model_dir!r} must be a string.")
    model_dir = os.path.expanduser(model_dir)  # shells leave the ~ of --model_dir=~/x alone
    return Settings(run, data, model_dir, _resolved(bindings, model_dir))


def _read(args: argparse.Namespace, model: Mapping[str, Any]) -> list[Binding]:
    reader = Reader([path for path in args.gin_search_paths.split(",") if path])
    bindings = reader.read_file(BASE)
    bindings += model_bindings(GinConfig.of(bindings), model)
    for name in args.gin_file or ([] if model else [_default_file(args)]):
        bindings += reader.read_file(name)
    bindings += [read_flag(flag) for flag in args.gin_bindings]
    if args.model_dir is not None:
        bindings.append(Binding(MODEL_DIR, args.model_dir, f"--model_dir={args.model_dir}"))
    return bindings


def _default_file(args: argparse.Namespace) -> str:
    """The gin file of a command line that names none."""
    if not args.reads_a_run:
        return DEFAULT_RUN
    model_dir = args.model_dir or f"runs/{Path(DEFAULT_RUN).stem}"
    saved = Path(model_dir).expanduser() / SAVED
    if not saved.is_file():
        raise UserError(
            f"--model_dir={model_dir} holds no {SAVED}, so no run was started there; "
            "name a run's directory, or its configuration with --gin_file."
        )
    return str(saved)


def _run_config(config: GinConfig, data: DataConfig) -> RunConfig:
    check_values(data)
    lengths = (data.feature_lengths["inputs"], data.feature_lengths["targets"])
    return RunConfig(
        model=config.build("ModelConfig"),
        batch=BatchShape(data.batch_size, *lengths, data.shards, data.pack),
        eval_batch=BatchShape(data.rows_per_eval_batch, *lengths, packed=data.pack),
        trainer=config.build("TrainerConfig"),
        optimizer=config.build("OptimizerConfig"),
        mesh=config.build("MeshConfig"),
    )


def _default_model_dir(bindings: list[Binding], data: DataConfig) -> str:
    """runs/<file> for a file that holds a whole run, else runs/<model's file>-<task>."""
    file = _last("ModelConfig.d_model", [b for b in bindings if b.file]).file
    model = Path(file or "model").stem
    if _last(_TASK, bindings).file == file:
        return f"runs/{model}"
    return f"runs/{model}-{data.mixture_or_task_name}"


def _last(target: str, bindings: list[Binding]) -> Binding:
    """The binding that gives a target its value."""
    found = [binding for binding in bindings if binding.target == target]
    return found[-1] if found else Binding(target, None, "nowhere")


def _resolved(bindings: list[Binding], model_dir: str) -> str:
    chosen = Binding(MODEL_DIR, model_dir, "the run's directory")
    header = "# Written by switchx. Read alone, with --gin_file, this gives the same run again.\n\n"
    return header + GinConfig.of([*bindings, chosen]).text()
