"""What a gin file states about a sweep: read, and held against the names that there are."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.settings import Binding, Request
from switchx.settings.configurables import PARAMETERS, SWEEP
from switchx.settings.gin_files import Reader
from switchx.settings.gin_syntax import Macro, leaves, near, own
from switchx.settings.gin_values import MODEL_DIR, ONCE, GinConfig
from switchx.settings.loading import read_files
from switchx.settings.sweep_config import SweepConfig
from switchx.sweeps import saved_gin
from switchx.sweeps.rules import Rule
from switchx.sweeps.saved_gin import GIN_FILE, HEADER, SAVED

BUDGET = "BUDGET_FLOPS"
STEPS = "TRAIN_STEPS"
# Of the model that the other settings make, for rules.
FIGURES = ("parameters", "parameters_per_token", "sequence_flops")
_NO_AXES = (MODEL_DIR, "SWEEP_DIR", *ONCE)


@dataclasses.dataclass(frozen=True)
class Statement:
    """A sweep as it was stated.

    Attributes:
      name: of the sweep.
      directory: where its files are to lie.
      config: its axes and all else.
      run: what is set of a run, without the sweep's own settings.
      flags: the same of the command line, which win over the files of an axis.
      files: what each file of the axis 'gin_file' sets, by its label.
      rules: each an expression, or a value.
      exclude: each an expression.
      free: names that rules use and no run has.
      texts: gin that states the same sweep when read alone, by its name in the folder.
    """

    name: str
    directory: str
    config: SweepConfig
    run: tuple[Binding, ...]
    flags: tuple[Binding, ...]
    files: Mapping[str, tuple[Binding, ...]]
    rules: Mapping[str, Any]
    exclude: tuple[Rule, ...]
    free: frozenset[str]
    texts: Mapping[str, str]

    @property
    def has_budget(self) -> bool:
        """Whether steps follow from FLOPs."""
        named = BUDGET in (self.config.axes or {}) or BUDGET in self.rules
        return named or self.config.budget_flops is not None


def read(request: Request, sweep_dir: str | None = None) -> Statement:
    """Reads a sweep.

    Args:
      request: its gin file and what the command line adds.
      sweep_dir: where its files are to lie, over what gin says.

    Raises:
      UserError: for the first mistake in any of it.
    """
    file = _file(request)
    bindings = read_files(request, {})
    flags = tuple(dataclasses.replace(own(b), file="the command line") for b in request.bindings)
    gin = GinConfig.of([*bindings, *flags])
    config: SweepConfig = gin.build(SWEEP)
    if not config.axes:
        raise UserError(
            f"--gin_file={file} states no sweep: give it SweepConfig.axes, as "
            "configs/sweeps/toy.gin has them, or give it to `switchx train`."
        )
    name = config.name or Path(file).stem
    files = _axis_files(config, file, request)
    if files:
        named = saved_gin.labels(config.axes[GIN_FILE])
        values = [named[value] for value in config.axes[GIN_FILE]]
        config = dataclasses.replace(config, axes={**config.axes, GIN_FILE: values})
    statement = Statement(
        name=name,
        directory=_directory(sweep_dir, config, file, request),
        config=config,
        run=tuple(_of_runs(bindings)),
        flags=tuple(_of_runs(flags)),
        files=files,
        rules=_rules(config),
        exclude=tuple(Rule.parse(text, "SweepConfig.exclude") for text in config.exclude),
        free=frozenset(),
        texts=saved_gin.texts(gin, name, files, flags),
    )
    return _checked(statement, gin)


def _file(request: Request) -> str:
    """The file that states the sweep: the last one that is named."""
    if request.model_dir is not None:
        raise UserError(
            f"--model_dir={request.model_dir} is not for sweeps, whose points have each their own: "
            "use --sweep_dir."
        )
    if not request.gin_files:
        raise UserError(
            "A sweep is stated by a gin file: name one, as in --gin_file=configs/sweeps/toy.gin."
        )
    return request.gin_files[-1]


def _directory(sweep_dir: str | None, config: SweepConfig, file: str, request: Request) -> str:
    """The one that is named, else beside a sweep.gin that a sweep wrote, else one under sweeps/."""
    for named in (sweep_dir, config.directory):
        if named is not None:
            return named
    reader = Reader(request.search_paths)
    path = reader.find(file, "--gin_file", f"--gin_file={file!r}")
    if path.name == SAVED and reader.text(path, "--gin_file").startswith(HEADER):
        return str(path.parent if storage.is_remote(path) else Path(storage.expanded(file)).parent)
    return f"sweeps/{config.name or Path(file).stem}"


def _of_runs(bindings: Iterable[Binding]) -> list[Binding]:
    return [binding for binding in bindings if not binding.target.startswith(f"{SWEEP}.")]


def _axis_files(config: SweepConfig, file: str, request: Request) -> dict[str, tuple[Binding, ...]]:
    """What each file of the axis sets, by its label; looked for beside the sweep's file first."""
    reader, setting = Reader(request.search_paths), f"SweepConfig.axes[{GIN_FILE!r}]"
    values, found = (config.axes or {}).get(GIN_FILE, ()), {}
    for value in values:
        if not isinstance(value, str):
            raise UserError(f"{setting} has {value!r}, which is no file's name: write a string.")
    folder = reader.find(file, "--gin_file", f"--gin_file={file!r}").parent
    for value, label in saved_gin.labels(values).items():
        path = reader.find(value, setting, f"{setting}={value!r}", folder)
        beside = str(path) == str(folder / value)
        bindings = reader.read_file(str(path) if beside else value, setting)
        if len(_of_runs(bindings)) < len(bindings):
            raise UserError(
                f"{setting} has {value!r}, which states a sweep itself: name a model or a run."
            )
        found[label] = tuple(bindings)
    return found


def _rules(config: SweepConfig) -> dict[str, Any]:
    return {
        target: Rule.parse(rule, f"SweepConfig.rules[{target!r}]")
        if isinstance(rule, str)
        else rule
        for target, rule in (config.rules or {}).items()
    }


def _checked(statement: Statement, gin: GinConfig) -> Statement:
    """The same, without what only the sweep uses; UserError for names that nothing knows."""
    axes = statement.config.axes or {}
    bound = [*statement.run, *statement.flags, *(b for f in statement.files.values() for b in f)]
    known = {part.name for b in bound for part in leaves(b.value) if isinstance(part, Macro)}
    expressions = [rule for rule in statement.rules.values() if isinstance(rule, Rule)]
    named = {name for rule in (*expressions, *statement.exclude) for name in rule.names}
    settable = [*sorted(known), *(p for p in PARAMETERS if not p.startswith(f"{SWEEP}.")), BUDGET]
    for where, names in (("axes", axes), ("rules", statement.rules)):
        for name in names:
            _check_settable(f"SweepConfig.{where}", name, settable, named, where == "axes")
    macros = {b.target for b in bound if b.is_macro}
    there = {*settable, *axes, *macros, *statement.rules, *FIGURES}
    for rule in (*expressions, *statement.exclude):
        for name in rule.names:
            if name not in there:
                raise UserError(
                    f"{rule.where}={rule.text!r} refers to {name!r}, which is no setting"
                    f"{near(name, sorted(there)) or ': name a macro or a parameter'}."
                )
    _check_once(statement)
    # Macros of the file that its axes or rules use, and no run.
    ours = gin.used((SWEEP,)) | named | set(axes) | set(statement.rules)
    for binding in (*statement.run, *statement.flags):
        if binding.is_macro and binding.target not in known | ours:
            raise gin.unused(binding, known | ours)
    return dataclasses.replace(statement, free=frozenset(ours - known - {*PARAMETERS, MODEL_DIR}))


def _check_settable(
    where: str, name: Any, settable: list[str], named: set[str], axis: bool
) -> None:
    if not isinstance(name, str) or name in _NO_AXES:
        raise UserError(f"{where} has {name!r}, which is not a sweep's to vary: leave it out.")
    if name in settable or name in named or (axis and name == GIN_FILE):
        return
    advice = near(name, [*settable, GIN_FILE] if axis else settable)
    raise UserError(
        f"{where} has {name!r}, which no macro or parameter knows"
        f"{advice or ': name one of configs/base.gin'}."
    )


def _check_once(statement: Statement) -> None:
    """Raises UserError where two things give a setting its value."""
    axes, rules = statement.config.axes or {}, statement.rules
    for name in axes:
        if name in rules:
            raise UserError(
                f"SweepConfig.rules has {name!r}, which is an axis too: keep one of the two."
            )
    if statement.has_budget and (STEPS in axes or STEPS in rules):
        raise UserError(
            f"SweepConfig has a value for {STEPS} and {BUDGET}, from which it follows: keep one "
            "of the two."
        )
    for flag in statement.flags:
        if flag.target in axes or flag.target in rules:
            kind = "an axis" if flag.target in axes else "a rule"
            raise UserError(
                f"{flag.origin}: {flag.target} has {kind} in the sweep, which would win: change "
                "it there."
            )
        if flag.target == STEPS and statement.has_budget:
            raise UserError(
                f"{flag.origin}: {STEPS} follows from {BUDGET} in the sweep: add "
                f"--gin.{BUDGET}=None."
            )
