"""From what a caller asks for to a run: which gin is read, and what comes of it."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.config import DataConfig, check_values
from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.settings.configurables import ROOTS, SWEEP
from switchx.settings.gin_files import Reader
from switchx.settings.gin_syntax import Binding, Part, own
from switchx.settings.gin_values import BASE, MODEL_DIR, ONCE, GinConfig
from switchx.settings.given_model import check_model, model_bindings
from switchx.settings.idle import check_idle
from switchx.settings.settings import Settings
from switchx.settings.t5x import writing
from switchx.settings.t5x.translation import is_t5x, lines, translate
from switchx.training.config import BatchShape, RunConfig
from switchx.training.run_reader import check_format, run_around

DEFAULT_RUN = "configs/runs/quickstart.gin"
SAVED = "config.gin"  # in a run's directory, written by the trainer
_SAVED = re.compile(r"config(\.\d+)?\.gin")  # config.0.gin is that of an earlier start
_HEADER = "# Written by switchx."

_TASK = "MIXTURE_OR_TASK_NAME"
_VOCABULARY = "VOCABULARY"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a caller asks for.

    Attributes:
      gin_files: in the order of their reading; of a run's own config.gin, named here, the folder
        that it lies in is the run's directory, wherever it once was.
      bindings: settings that win over those of files.
      search_paths: more folders in which gin files are looked for.
      model_dir: the run's directory, over what gin says.
    """

    gin_files: tuple[str, ...] = ()
    bindings: tuple[Binding, ...] = ()
    search_paths: tuple[str, ...] = ()
    model_dir: str | None = None

    @property
    def named_dir(self) -> str | None:
        """The run's directory where the caller names it himself."""
        by_gin = [binding.value for binding in self.bindings if binding.target == MODEL_DIR]
        return self.model_dir if self.model_dir is not None else (by_gin or [None])[-1]

    @property
    def flags(self) -> tuple[Binding, ...]:
        """What wins over files, the run's directory last."""
        if self.model_dir is None:
            return self.bindings
        origin = f"--model_dir={self.model_dir}"
        return (*self.bindings, Binding(MODEL_DIR, self.model_dir, origin))

    def of_run(self) -> "Request":
        """The same, with the configuration that a run saved where no file is named.

        Raises:
          UserError: no run was started there.
        """
        if self.gin_files:
            return self
        named = self.named_dir
        model_dir = f"runs/{Path(DEFAULT_RUN).stem}" if named is None else named
        saved = storage.as_path(model_dir, "--model_dir") / SAVED
        if not storage.is_file(saved, "--model_dir"):
            around = run_around(saved.parent, "--model_dir")
            named = "a run's directory" if around is None else f"the run's directory, {around}"
            raise UserError(
                f"--model_dir={model_dir} holds no {SAVED}, so no run was started there: "
                f"name {named}, or its configuration with --gin_file."
            )
        check_format(saved.parent)
        return dataclasses.replace(self, gin_files=(str(saved),))

    def of_whole_split(self) -> "Request":
        """The same, with evaluations of the whole split where the caller himself says nothing."""
        whole = Binding("EVAL_STEPS", None, "the whole split")
        return dataclasses.replace(self, bindings=(whole, *self.bindings))


def load(
    request: Request,
    defaults: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Settings:
    """Reads configs/base.gin, the gin files in their order, then the request's own settings.

    Args:
      defaults: values for required macros that the caller can do without.
      model: parameters of a model that is there already (`switchx.interop.Source.model_fields`),
        in the place of a gin file that names one. Without it and without any gin file, the run is
        configs/runs/quickstart.gin.

    Raises:
      UserError: for the first mistake in any of it.
    """
    bindings, theirs = read(request, model or {})
    _refuse_sweep(bindings)
    return dataclasses.replace(of_bindings(bindings, defaults, model), theirs=theirs)


def of_bindings(
    bindings: list[Binding],
    defaults: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Settings:
    """What bindings come to, the last one of each setting; the rest as of `load`."""
    config = GinConfig.of(bindings)
    try:
        config.check_all_used()
        check_model(config, model or {})
        config = config.with_defaults(**(defaults or {}))
        made = _settings(config, bindings)
        check_idle(made)
        return made
    except UserError as error:
        raise UserError(config.explained(str(error))) from error


def read(request: Request, model: Mapping[str, Any]) -> tuple[list[Binding], tuple[str, ...]]:
    """All that a request sets, configs/base.gin first and its own settings last.

    Returns:
      The bindings, and lines on what files of T5X came to.
    """
    reader = Reader(request.search_paths)
    base = _base(reader, model)
    files = [(name, reader.read_parts(name)) for name in _names(request, model)]
    parts = [part for _, own_parts in files for part in own_parts]
    if is_t5x(parts):
        found = translate(parts, request.flags, base)
        return [*base, *found.bindings], lines(found)
    return [*base, *_of_files(reader, files), *map(own, request.flags)], ()


def converted(request: Request) -> tuple[str, list[str], list[str]]:
    """What files of T5X are as one of switchx, what of them was passed over, and what is to be set.

    Raises:
      UserError: they are none of T5X's, or ask for what switchx does not have.
    """
    reader = Reader(request.search_paths)
    base = reader.read_file(BASE)
    parts = [part for name in request.gin_files for part in reader.read_parts(name)]
    if not is_t5x(parts):
        for part in parts:
            own(part)
        named = ", ".join(request.gin_files)
        raise UserError(f"{named} is switchx's already: there is nothing to convert.")
    found = translate(parts, request.flags, base)
    _check_values(GinConfig.of([*base, *found.bindings]))
    return writing.text(found, base, request.gin_files), found.notes, writing.missing(found)


def _check_values(config: GinConfig) -> None:
    """Raises UserError for a value that no run could have; what is not set yet may come later."""
    for name in ROOTS:
        try:
            made = config.build(name)
            if isinstance(made, DataConfig):
                check_values(made)
        except UserError as error:
            if "not set" not in str(error):
                raise UserError(config.explained(str(error))) from error


def read_files(request: Request, model: Mapping[str, Any]) -> list[Binding]:
    """What configs/base.gin and a request's files, of switchx, set in this order."""
    reader = Reader(request.search_paths)
    files = [(name, reader.read_parts(name)) for name in _names(request, model)]
    return [*_base(reader, model), *_of_files(reader, files)]


def _of_files(reader: Reader, files: list[tuple[str, list[Part]]]) -> list[Binding]:
    bindings = []
    for name, parts in files:
        said = [*map(own, parts)]
        bindings += [*said, *_own_directory(reader, name, said)]
    return bindings


def _base(reader: Reader, model: Mapping[str, Any]) -> list[Binding]:
    bindings = reader.read_file(BASE)
    return [*bindings, *model_bindings(GinConfig.of(bindings), model)]


def _names(request: Request, model: Mapping[str, Any]) -> tuple[str, ...]:
    return request.gin_files or (() if model else (DEFAULT_RUN,))


def _refuse_sweep(bindings: list[Binding]) -> None:
    for binding in bindings:
        if binding.target.startswith(f"{SWEEP}.") and binding.file != BASE:
            raise UserError(
                f"--gin_file={binding.file} states a sweep, which is no single run: give it to "
                f"`switchx sweep plan` or `switchx sweep run` ({binding.origin}: "
                f"{binding.target})."
            )


def is_saved(name: str) -> bool:
    """Whether a file of this name in a run's directory is the configuration of a start."""
    return _SAVED.fullmatch(name) is not None


def _own_directory(reader: Reader, name: str, said: list[Binding]) -> list[Binding]:
    """A run that was copied or moved goes on where its configuration was named.

    With it goes the vocabulary in its directory (`switchx import`). `said`: what the file sets.
    """
    path = reader.find(name, "--gin_file", f"--gin_file={name!r}")
    if not is_saved(path.name):
        return []
    if not reader.text(path, "--gin_file").startswith(_HEADER):
        return []
    named = Path(storage.expanded(name))
    folder = path.parent if storage.is_remote(path) or not named.is_file() else named.parent
    moved = {MODEL_DIR: str(folder)}
    before, vocabulary = (_last(target, said).value for target in (MODEL_DIR, _VOCABULARY))
    if isinstance(vocabulary, str) and vocabulary.startswith(f"{before}/"):
        moved[_VOCABULARY] = f"{folder}{vocabulary.removeprefix(str(before))}"
    origin = f"--gin_file={name}"
    return [Binding(target, value, origin, file=name) for target, value in moved.items()]


def _settings(config: GinConfig, bindings: list[Binding]) -> Settings:
    data, model = config.build("DataConfig"), config.build("ModelConfig")
    data = dataclasses.replace(data, encoder_alone=model.encoder_alone)
    run = _run_config(config, data, model)
    model_dir = config.macro(MODEL_DIR)
    model_dir = _default_model_dir(bindings, data) if model_dir is None else model_dir
    if not isinstance(model_dir, str):
        raise UserError(f"MODEL_DIR={model_dir!r} must be a string.")
    model_dir = str(storage.as_path(model_dir, "MODEL_DIR"))
    chosen = [Binding(MODEL_DIR, model_dir, "the run's directory")]
    # What is done once, when it is asked for, is no part of the run.
    chosen += [Binding(name, False, "after the start") for name in ONCE]
    resolved = GinConfig.of([*bindings, *chosen]).text()
    header = f"{_HEADER} Read alone, with --gin_file, this gives the same run again.\n\n"
    start, scores = config.build("StartConfig"), config.build("ScoreConfig")
    objective = config.build("ObjectiveConfig")
    return Settings(run, data, start, objective, scores, model_dir, header + resolved, config)


def _run_config(config: GinConfig, data: DataConfig, model: ModelConfig) -> RunConfig:
    check_values(data)
    targets = 0 if model.encoder_alone else data.feature_lengths["targets"]
    lengths = (data.feature_lengths["inputs"], targets)
    return RunConfig(
        model=model,
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
