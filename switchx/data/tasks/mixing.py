"""Mixtures in seqio: those that gin makes, tasks that join late, and what is left at the end."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.config import DataConfig
from switchx.data.tasks import names
from switchx.data.tasks.rates import BY_EXAMPLES, by_examples, no_number_of, starts_of
from switchx.errors import UserError


def made_by_gin(config: DataConfig) -> seqio.Mixture:
    """The mixture of MIXTURE_TASKS, which goes by MIXTURE_OR_TASK_NAME.

    Raises:
      UserError: its tasks do not go together.
    """
    parts = {name: seqio.get_mixture_or_task(name) for name in config.names}
    _check_same_features(parts)
    rates = [_seqio_rate(parts[name], rate, config) for name, rate in config.mixture_rates.items()]
    return seqio.Mixture(config.mixture_or_task_name, list(zip(parts.values(), rates, strict=True)))


def _check_same_features(parts: Mapping[str, Any]) -> None:
    features = {name: sorted(part.output_features) for name, part in parts.items()}
    (first, own), *others = features.items()
    for other, theirs in others:
        if theirs != own:
            raise UserError(
                f"MIXTURE_TASKS names {first!r} of the features {', '.join(own)} and {other!r} of "
                f"{', '.join(theirs)}: name tasks of the same features."
            )


def _seqio_rate(part: Any, rate: float | str, config: DataConfig) -> Any:
    if rate != BY_EXAMPLES:
        return rate
    if isinstance(part, seqio.Mixture):
        raise no_number_of(part.name)
    return functools.partial(
        _by_examples, temperature=config.mixture_temperature, maximum=config.mixture_maximum
    )


def _by_examples(task: seqio.Task, temperature: float, maximum: float | None) -> float:
    """As `seqio.mixing_rate_num_examples`, for a task that knows how many it has."""
    try:
        examples = seqio.mixing_rate_num_examples(task)
    except TypeError:  # it counts None
        examples = 0
    if not examples:
        raise UserError(
            f"MIXTURE_TASKS names {task.name!r}, of which the number of examples is not known "
            "before all are read: give rates, as in "
            f"{{{task.name!r}: 1.0}}, or prepare it (PREPARED_DIR), which counts them."
        )
    return by_examples(examples, temperature, maximum)


def check_vocabularies(provider: Any, config: DataConfig) -> None:
    """Raises UserError where the tasks of a mixture do not share one vocabulary."""
    first, *others = seqio.get_subtasks(provider)
    own = first.output_features["targets"].vocabulary
    for task in others:
        theirs = task.output_features["targets"].vocabulary
        if not _is_same(own, theirs):
            raise UserError(
                f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} mixes {first.name!r} and "
                f"{task.name!r}, whose vocabularies are different, and a model has one: name tasks "
                "that share theirs, or set VOCABULARY for all of them."
            )


def _is_same(one: Any, other: Any) -> bool:
    """Equality that reads no public file."""
    files = [getattr(v, "sentencepiece_model_file", None) for v in (one, other)]
    if files[0] == files[1] and None not in files:
        return bool(one.extra_ids == other.extra_ids)
    both_public = set(files) <= set(names.PUBLIC_MODELS.values())
    return one is other or (not both_public and bool(one == other))


def to_the_end(provider: Any) -> Any:
    """A task, or a mixture that goes on where one of its tasks has no more; seqio's stops there.

    One that samples in a way of its own is left as it is.
    """
    if not _samples_by_rates(provider):
        return provider
    return sampled(provider, functools.partial(provider._sample_fn, stop_on_empty_dataset=False))


def joining(provider: Any, config: DataConfig, rows: int) -> Any:
    """The task or mixture whose tasks join at the steps of MIXTURE_STARTS.

    Args:
      rows: of a step, each an example.

    Raises:
      UserError: MIXTURE_STARTS makes no sense for it.
    """
    starts = join_steps(provider, config)
    if not starts:
        return provider
    first = [starts[task.name] * rows for task in provider.tasks if "train" in task.splits]
    return sampled(provider, functools.partial(_sample_joined, first=first))


def join_steps(provider: Any, config: DataConfig) -> dict[str, int]:
    """The step at which each task with a train split joins; {} where none waits.

    Raises:
      UserError: as `joining`.
    """
    if not config.mixture_starts:
        return {}
    given = f"MIXTURE_STARTS={dict(config.mixture_starts)}"
    name = config.mixture_or_task_name
    if not isinstance(provider, seqio.Mixture):
        raise UserError(
            f"{given} is of a mixture, and MIXTURE_OR_TASK_NAME={name!r} is a task: leave it out."
        )
    if not _samples_by_rates(provider):
        raise UserError(
            f"{given} is for a mixture that samples by rates, and MIXTURE_OR_TASK_NAME={name!r} "
            "has a sample_fn of its own: leave it out, or name the tasks in MIXTURE_TASKS."
        )
    trained = [task.name for task in provider.tasks if "train" in task.splits]
    rated = [t.name for t in provider.tasks if t.name in trained and provider.get_rate(t) > 0]
    steps = starts_of(config.mixture_starts, rated, name)
    return {**dict.fromkeys(trained, 0), **dict(zip(rated, steps, strict=True))}


def _samples_by_rates(provider: Any) -> bool:
    sample = getattr(provider, "_sample_fn", None)
    return isinstance(sample, functools.partial) and "stop_on_empty_dataset" in sample.keywords


def _sample_joined(
    datasets: Sequence[tf.data.Dataset],
    rates: Sequence[float],
    seed: int | None,
    first: Sequence[int],
) -> tf.data.Dataset:
    """The n-th example is of one of the datasets whose `first` is at most n, by their rates."""
    rate_T, first_T = tf.constant(rates, tf.float64), tf.constant(first, tf.int64)
    none_T = tf.zeros_like(rate_T)
    weights = tf.data.Dataset.counter().map(lambda n: tf.where(n >= first_T, rate_T, none_T))
    return tf.data.Dataset.sample_from_datasets(
        datasets, weights, seed=seed, stop_on_empty_dataset=True
    )


def sampled(provider: seqio.Mixture, sample: Any, tasks: Sequence[Any] | None = None) -> Any:
    """The mixture with another way to sample, and other tasks in the place of its own.

    None in the place of a task leaves it out.
    """
    rated = [
        (changed, functools.partial(_rate, provider, task))
        for task, changed in zip(provider.tasks, tasks or provider.tasks, strict=True)
        if changed is not None
    ]
    return seqio.Mixture(provider.name, rated, sample_fn=sample)


def _rate(mixture: Any, task: Any, changed: Any) -> float:
    """How often a task comes, asked when it is needed: it may count the task's examples."""
    rate = mixture.rate_per_task_name.get(task.name)
    if callable(rate) and not mixture._sub_mixtures:  # it counts those that are read
        return float(rate(changed))
    return float(mixture.get_rate(task))
