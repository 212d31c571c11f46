"""Says what is missing before anything is compiled."""

from typing import Any

import seqio

from switchx.data.config import DataConfig, check_values
from switchx.data.streamed.pipeline import one_pass, reporting_errors
from switchx.data.tasks import lookup, mc4, sources, vocabulary_choice
from switchx.data.tasks.vocabularies import EXTRA_IDS
from switchx.errors import UserError


def run_preflight(config: DataConfig) -> None:
    """Raises UserError with the first thing that would stop this config's pipeline."""
    check_values(config)
    provider = lookup.find_provider(config)
    vocabulary_choice.open_vocabulary(config, provider)
    _check_span_lengths(provider, config)
    sources.check_sources(provider, config)
    if config.mixture_or_task_name not in vocabulary_choice.SELF_CONTAINED:
        name = f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r}"
        for split in sources.SPLITS:
            _check_one_example(_probe(provider), config, split, name)
    if config.eval_each_task:
        _check_each_task(provider, config)


def _check_span_lengths(provider: Any, config: DataConfig) -> None:
    """Span corruption fixes the length of the targets; t5 says so late, or not at all."""
    from switchx.data.tasks import registry

    for task in seqio.get_subtasks(provider):
        spans = registry.span_settings(task)
        if spans is not None:
            _check_lengths(config, *spans)


def _check_lengths(config: DataConfig, density: float, mean_span: float) -> None:
    from switchx.data.tasks.registry import span_lengths

    inputs, targets = config.feature_lengths["inputs"], config.feature_lengths["targets"]
    lengths = dict(config.feature_lengths)
    spans, needed = span_lengths(inputs, density, mean_span)
    if spans < 1:
        least = next(n for n in range(inputs, 10_000) if span_lengths(n, density, mean_span)[0])
        raise UserError(
            f"TASK_FEATURE_LENGTHS is {lengths} but rows so short hold no whole span; "
            f"give at least {least} inputs."
        )
    if targets < needed:
        raise UserError(
            f"TASK_FEATURE_LENGTHS is {lengths} but corrupting {inputs} inputs makes {needed} "
            f"targets; give at least {needed} targets."
        )
    if spans > EXTRA_IDS and config.vocabulary != "default":
        raise UserError(
            f"TASK_FEATURE_LENGTHS is {lengths} but {inputs} inputs take {spans} sentinels and "
            f"VOCABULARY {config.vocabulary!r} has {EXTRA_IDS}; give fewer inputs."
        )


def _probe(provider: Any) -> Any:
    """One task stands for all of mC4, which takes minutes to build; else the provider itself."""
    return provider.tasks[0] if provider.name in mc4.MIXTURES else provider


def _check_each_task(provider: Any, config: DataConfig) -> None:
    """A task that cannot be evaluated would otherwise end the run at its first evaluation."""
    names = lookup.evaluated_tasks(config)
    for task in (task for task in seqio.get_subtasks(provider) if task.name in names):
        name = f"EVAL_EACH_TASK is True and the task {task.name!r}"
        _check_one_example(task, config, "validation", name)


def _check_one_example(provider: Any, config: DataConfig, split: str, name: str) -> None:
    """Reads one example: shows broken shards and empty corpora within seconds."""
    with reporting_errors(provider, config):
        found = sum(1 for _ in one_pass(provider, config, split).take(1))
    if not found:
        raise UserError(
            f"{name} gives no example for the split {split!r}; its files are empty or hold too "
            "little text."
        )
