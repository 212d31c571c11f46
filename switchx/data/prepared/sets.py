"""Which sets lie behind a name in PREPARED_DIR, and how often each comes."""

import fnmatch
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.prepared import set_plan
from switchx.data.prepared.set_plan import SetInfo, SetPlan
from switchx.data.tasks import lookup
from switchx.data.tasks.rates import BY_EXAMPLES, by_examples, no_number_of
from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.data.tasks.vocabularies import Bytes, Vocabulary
from switchx.errors import UserError


def set_infos(config: DataConfig, name: str | None = None) -> list[SetInfo]:
    """The sets of a task or mixture, in the order of its rates.

    Raises:
      UserError: one is missing, damaged or was cut with other settings.
    """
    default = config.vocabulary == "default"
    wanted = None if default else lookup.open_vocabulary(config).digest
    infos = []
    for task in rates(config, name):
        info = set_plan.read_info(set_folder(config, task), task)
        set_plan.check_same(info.plan, config, wanted)
        infos.append(info)
    _check_one_vocabulary([info.plan for info in infos], config)
    return infos


def other_sources(config: DataConfig, split: str, pattern: str) -> list[str]:
    """What a config's sets were made of, where a glob of files names nothing of it.

    They are not looked for: a set may have been made elsewhere. A place in braces stands for any
    name.

    Raises:
      UserError: as `set_infos`.
    """
    local = not storage.is_remote(storage.expanded(pattern))
    wanted = os.path.abspath(storage.expanded(pattern)) if local else pattern
    made_of = [path for info in set_infos(config) for path in info.sources.get(split, {})]
    fitting = re.sub(r"{\w+}", "*", wanted)
    named = any(path == wanted or fnmatch.fnmatchcase(path, fitting) for path in made_of)
    return [] if named else made_of


def vocabulary(config: DataConfig) -> Vocabulary:
    """The vocabulary that a config's sets were prepared with, where VOCABULARY leaves it to them.

    Raises:
      UserError: a set is missing, or its vocabulary is nowhere to be found.
    """
    plan = set_infos(config)[0].plan
    path = set_folder(config, plan.task) / set_plan.VOCABULARY_FILE
    model = storage.read_if_there(path, "PREPARED_DIR", set_plan.MAX_BYTES)
    near = Bytes() if model is None else SentencePieces(model, name=str(path))
    for opened in (lambda: near, lambda: lookup.open_vocabulary(config)):  # which may be far away
        found = opened()
        if (found.digest, found.size) == (plan.vocabulary, plan.vocab_size):
            return found
    raise UserError(
        f"VOCABULARY='default' is not what the set of {plan.task!r} in PREPARED_DIR "
        f"{config.prepared_dir!r} was prepared with, and none lies there: name the one that was."
    )


def _check_one_vocabulary(plans: Sequence[SetPlan], config: DataConfig) -> None:
    others = [plan for plan in plans if plan.vocabulary != plans[0].vocabulary]
    if others:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} mixes {plans[0].task!r} and "
            f"{others[0].task!r}, whose sets in PREPARED_DIR={config.prepared_dir!r} were prepared "
            "with different vocabularies, and a model has one: prepare them with one VOCABULARY."
        )


def rates(config: DataConfig, name: str | None = None) -> dict[str, float]:
    """The tasks behind a name in PREPARED_DIR, and how often each comes: {name: 1.0} of a task.

    Those that never come are not among them.

    Raises:
      UserError: the description of the mixture is damaged, or a set is missing.
    """
    found = _all_rates(config, name)
    return {task: rate for task, rate in found.items() if rate > 0}


def _all_rates(config: DataConfig, name: str | None = None) -> dict[str, float]:
    """The same with the tasks that are only evaluated."""
    name = name or config.mixture_or_task_name
    if config.mixture_tasks is None or name != config.mixture_or_task_name:
        return _described(config, name) or {name: 1.0}
    found: dict[str, float] = {}
    for part, rate in config.mixture_rates.items():
        tasks = _described(config, part)
        if rate == BY_EXAMPLES:
            if tasks is not None:
                raise no_number_of(part)
            rate = _by_examples(config, part)
        tasks = tasks or {part: 1.0}
        for task, share in tasks.items():
            found[task] = found.get(task, 0.0) + float(rate) * share / sum(tasks.values())
    return dict(sorted(found.items()))


def _by_examples(config: DataConfig, task: str) -> float:
    """A task's rate by what its source had when it was prepared."""
    shards = set_plan.read_info(set_folder(config, task), task).shards.get("train", ())
    examples = sum(facts.documents for facts in shards)
    return by_examples(examples, config.mixture_temperature, config.mixture_maximum)


def _described(config: DataConfig, name: str) -> dict[str, float] | None:
    """The rates in the description of a mixture; None of a task.

    Raises:
      UserError: it is damaged.
    """
    path = set_folder(config, name) / set_plan.MIXTURE_FILE
    content = storage.read_if_there(path, "PREPARED_DIR", set_plan.MAX_BYTES)
    if content is None:
        return None
    try:
        found = json.loads(content)["rates"]
        there = {str(task): float(rate) for task, rate in found.items()}
        known = np.isfinite(list(there.values())).all() and min(there.values(), default=0) >= 0
        if not known or not any(there.values()):
            raise ValueError("no rate above 0")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({type(error).__name__}): run `switchx data prepare` again."
        ) from error
    return there


def evaluated_tasks(config: DataConfig) -> list[str]:
    """The tasks of a prepared mixture that have a validation split; none of what is no mixture."""
    tasks = _all_rates(config)
    if list(tasks) == [config.mixture_or_task_name]:
        return []
    infos = (set_plan.read_info(set_folder(config, task), task) for task in tasks)
    return [info.plan.task for info in infos if "validation" in info.shards]


def set_folder(config: DataConfig, name: str) -> Path:
    """Where a task's set lies, or a mixture's description."""
    return set_plan.folder_of(str(config.prepared_dir), name)
