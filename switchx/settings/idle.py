"""Which settings do nothing beside the others: refused where the caller gives them himself.

In files they may stay: these are more general than one run.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from switchx import data, storage
from switchx.data.tasks import names
from switchx.errors import UserError
from switchx.model.switch_config import SwitchConfig
from switchx.settings.configurables import CONFIGURABLES
from switchx.settings.settings import Settings

# With an optimizer of somebody's own nobody knows here what it reads.
_OWN_MOMENTUM = ("adamw", "muon")
_OWN_BETAS = ("adafactor",)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """Parameters that count with some settings alone.

    Attributes:
      parameters: by their names, as "StartConfig.noise".
      idle: whether settings make nothing of them.
      why: what makes nothing of them, and what to do about it.
    """

    parameters: tuple[str, ...]
    idle: Callable[[Settings], bool]
    why: Callable[[Settings], tuple[str, str]]


def _parameters(of: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{of}.{name}" for name in names)


def _switch(settings: Settings) -> SwitchConfig:
    switch = settings.run.model.switch  # of a dense model nothing is typed: `check_all_used`
    assert switch is not None
    return switch


def _task(settings: Settings) -> str:
    return f"MIXTURE_OR_TASK_NAME={settings.data.mixture_or_task_name!r}"


def _slotless(settings: Settings) -> bool:
    switch = settings.run.model.switch
    return switch is not None and switch.dropless


_STARTS = [field.name for field in dataclasses.fields(CONFIGURABLES["StartConfig"])][1:]

_RULES = (
    _Rule(
        _parameters("StartConfig", *_STARTS),
        lambda s: s.start.from_run is None,
        lambda s: ("START_FROM=None", "name the run to start from"),
    ),
    _Rule(
        _parameters("OptimizerConfig", "decay_share"),
        lambda s: s.run.optimizer.schedule != "wsd",
        lambda s: (f"SCHEDULE={s.run.optimizer.schedule!r}", "set SCHEDULE='wsd'"),
    ),
    _Rule(
        _parameters("OptimizerConfig", "momentum"),
        lambda s: s.run.optimizer.name in _OWN_MOMENTUM,
        lambda s: (f"OPTIMIZER={s.run.optimizer.name!r}", "set OPTIMIZER='adafactor'"),
    ),
    _Rule(
        _parameters("OptimizerConfig", "beta1", "beta2"),
        lambda s: s.run.optimizer.name in _OWN_BETAS,
        lambda s: (f"OPTIMIZER={s.run.optimizer.name!r}", "set OPTIMIZER='adamw'"),
    ),
    _Rule(
        _parameters("TrainerConfig", "max_rollbacks"),
        lambda s: s.run.trainer.on_bad_loss == "stop",
        lambda s: ("ON_BAD_LOSS='stop'", "set ON_BAD_LOSS='skip'"),
    ),
    _Rule(
        _parameters("ScoreConfig", "num_beams", "length_penalty"),
        lambda s: s.scores.method != "beam",
        lambda s: (f"DECODING_METHOD={s.scores.method!r}", "set DECODING_METHOD='beam'"),
    ),
    _Rule(
        _parameters("ScoreConfig", "temperature", "top_k", "top_p", "seed"),
        lambda s: s.scores.method != "sample",
        lambda s: (f"DECODING_METHOD={s.scores.method!r}", "set DECODING_METHOD='sample'"),
    ),
    _Rule(
        _parameters("SwitchConfig", "jitter"),
        lambda s: _switch(s).exploration != "jitter",
        lambda s: (f"SwitchConfig.exploration={_switch(s).exploration!r}", "set 'jitter'"),
    ),
    _Rule(
        _parameters("SwitchConfig", "router_dropout_rate"),
        lambda s: _switch(s).exploration != "input_dropout",
        lambda s: (
            f"SwitchConfig.exploration={_switch(s).exploration!r}",
            "set 'input_dropout'",
        ),
    ),
    _Rule(
        _parameters("SwitchConfig", "second_threshold"),
        lambda s: _switch(s).second_policy not in ("threshold", "random"),
        lambda s: (
            f"SwitchConfig.second_policy={_switch(s).second_policy!r}",
            "set 'threshold' or 'random'",
        ),
    ),
    _Rule(
        _parameters(
            "SwitchConfig", "train_capacity_factor", "eval_capacity_factor", "min_capacity"
        ),
        _slotless,
        lambda s: (f"DISPATCHER={_switch(s).dispatcher!r}", "set RAGGED_POOLS"),
    ),
)

_OF_DATA = (
    _Rule(
        _parameters("DataConfig", "json_train_glob", "json_validation_glob"),
        lambda s: not names.may_read_c4_json(s.data.names),
        lambda s: (_task(s), f"name a task that reads it, such as {names.C4_JSON!r}"),
    ),
    _Rule(
        _parameters("DataConfig", "text_field"),
        lambda s: not names.may_read_text_files(s.data.names),
        lambda s: (_task(s), f"name a task that reads it, such as {names.TEXT!r}"),
    ),
    _Rule(
        _parameters("DataConfig", "tfds_data_dir"),
        lambda s: not names.may_read_tfds(s.data.names),
        lambda s: (_task(s), f"name a task that reads it, such as {names.C4_TFDS!r}"),
    ),
    _Rule(
        _parameters("DataConfig", "prepared_cache_gb"),
        lambda s: not storage.is_remote(s.data.prepared_dir or ""),
        lambda s: (f"PREPARED_DIR={s.data.prepared_dir!r}", "give that at gs:// or s3://"),
    ),
)


def _made_of(settings: Settings, parameter: str) -> list[str]:
    """What a prepared set was made of, where this names other files."""
    given, config = settings.gin.value(f"DataConfig.{parameter}"), settings.data
    globs = given if isinstance(given, Mapping) else {_SPLIT_OF[parameter]: given}
    return data.other_sources(config, globs) if config.prepared_dir is not None else []


def _of_set(parameter: str) -> _Rule:
    return _Rule(
        _parameters("DataConfig", parameter),
        lambda s: bool(_made_of(s, parameter)),
        lambda s: (
            f"PREPARED_DIR={s.data.prepared_dir!r}, whose set was made of "
            f"{_made_of(s, parameter)[0]!r}",
            "set PREPARED_DIR=None to read it",
        ),
    )


_SPLIT_OF = {"json_train_glob": "train", "json_validation_glob": "validation"}
_OF_SETS = tuple(map(_of_set, (*_SPLIT_OF, "text_files", "task_files")))
_TEACHING = [field.name for field in dataclasses.fields(CONFIGURABLES["ObjectiveConfig"])][1:]
_OF_TEACHERS = (
    _Rule(
        _parameters("ObjectiveConfig", *_TEACHING),
        lambda s: s.objective.name != "distill",
        lambda s: (f"OBJECTIVE={s.objective.name!r}", "set OBJECTIVE='distill'"),
    ),
    _Rule(
        _parameters("ObjectiveConfig", "top_k"),
        lambda s: s.objective.logits is None,
        lambda s: ("TEACHER_LOGITS=None", "name the logits"),
    ),
    _Rule(
        _parameters("ObjectiveConfig", "checkpoint", "dtype"),
        lambda s: s.objective.teacher is None,
        lambda s: ("TEACHER=None", "name the teacher"),
    ),
)


def check_idle(settings: Settings) -> None:
    """Raises UserError for the first setting that a caller gave and that does nothing."""
    _check(settings, (*_RULES, *_OF_DATA))


def check_idle_of_set(settings: Settings) -> None:
    """The same of what names sources, for who reads a prepared set in their place."""
    _check(settings, _OF_SETS)


def check_idle_of_teacher(settings: Settings) -> None:
    """The same of what is said of a teacher, for a run that is trained or planned."""
    _check(settings, _OF_TEACHERS)


def _check(settings: Settings, rules: tuple[_Rule, ...]) -> None:
    gin = settings.gin
    for rule in rules:
        for parameter in rule.parameters:
            name = gin.name_to_set(parameter)
            binding = gin.bindings.get(name)
            if binding is None or binding.file is not None or not rule.idle(settings):
                continue
            value = gin.value(name)
            if value != _default(parameter):
                beside, otherwise = rule.why(settings)
                raise UserError(
                    f"{name}={value!r} does nothing with {beside}: leave it out, or {otherwise}."
                )


def _default(parameter: str) -> Any:
    cls, _, field = parameter.partition(".")
    return getattr(CONFIGURABLES[cls], field)
