"""Finds the seqio task or mixture that the user named."""

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.config import FEATURES, DataConfig
from switchx.data.tasks import t5_metrics, task_files, vocabulary_files
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError, first_line

# t5 itself cannot be a requirement: its own would unpack nightly packages over seqio and TFDS.
T5 = (
    "; the tasks of the package t5 are there after `pip install 'switchx[t5]'` and "
    "`pip install --no-deps t5`"
)


def find_provider(config: DataConfig) -> Any:
    """Returns the seqio Task or Mixture of a config, with its vocabulary and data folder applied.

    Raises:
      UserError: there is none of that name, its module cannot be imported, it lacks features, or
        its tasks do not go together.
    """
    load_tensorflow()
    import seqio

    from switchx.data.tasks import mixing, registry

    registry.register(config)
    _import_task_module(config.task_module)
    provider = _named(config)
    _check_features(provider, config)
    _check_t5(provider, config)
    provider = _with_files(provider, config)
    for task in seqio.get_subtasks(provider):
        if isinstance(task.source, registry.EmbeddedSource):
            task.source.ensure()
        if isinstance(task.source, seqio.TfdsDataSource) and config.tfds_data_dir:
            task.source.tfds_dataset.override_data_dir(storage.expanded(config.tfds_data_dir))
    provider = _revoiced(provider, config)
    mixing.check_vocabularies(provider, config)
    return provider


def open_vocabulary(config: DataConfig, provider: Any = None) -> Vocabulary:
    """Returns the vocabulary of a config; `provider` is its task where already looked up.

    TensorFlow is imported only where no one but the task knows its vocabulary.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    known = vocabulary_files.open_chosen(config)
    if known is not None:
        return known
    provider = provider or find_provider(config)
    from switchx.data.tasks import seqio_vocabularies

    return seqio_vocabularies.to_plain(provider.output_features["targets"].vocabulary, config)


def evaluated_tasks(config: DataConfig) -> list[str]:
    """Names of the tasks of a config's mixture that have a validation split; of no mixture none."""
    provider = find_provider(config)
    import seqio

    if not isinstance(provider, seqio.Mixture):
        return []
    return [task.name for task in provider.tasks if "validation" in task.splits]


def _import_task_module(name: str | None) -> None:
    if not name:
        return
    with _working_folder_on_path():
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # the user's code: anything can come out of it
            raise UserError(
                f"MIXTURE_OR_TASK_MODULE={name!r} cannot be imported ({type(error).__name__}: "
                f"{first_line(error)}): give the dotted name of a module on the Python path or in "
                "the working folder."
            ) from error


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.append(folder)  # last: nothing lying there can stand in for an installed package
    try:
        yield
    finally:
        sys.path.remove(folder)


def _named(config: DataConfig) -> Any:
    import seqio

    for name in config.names:
        _check_registered(name, config)
    if config.mixture_tasks is None:
        return seqio.get_mixture_or_task(config.mixture_or_task_name)
    if config.mixture_or_task_name in _all_names():
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} is registered with seqio, and "
            "MIXTURE_TASKS makes a mixture of that name: give it one of its own, or set "
            "MIXTURE_TASKS=None for what is registered."
        )
    from switchx.data.tasks import mixing

    return mixing.made_by_gin(config)


def _check_registered(name: str, config: DataConfig) -> None:
    # The tasks of t5 take time to import: only where the name may be one of them.
    advice_on_t5 = "" if name in _all_names() or _import_t5() else T5
    known = _all_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        advice = f"near it are {_listed(close)}" if close else "no name is near it"
        given = f"MIXTURE_OR_TASK_NAME={name!r}"
        if config.mixture_tasks is not None:
            given = f"MIXTURE_TASKS names {name!r}, which"
        raise UserError(
            f"{given} is not registered with seqio; {advice}, and MIXTURE_OR_TASK_MODULE names a "
            f"module that registers your own{advice_on_t5}."
        )


def _import_t5() -> bool:
    """Registers the tasks of the package t5; False where it, or what it needs, is not installed."""
    try:
        import t5.data.mixtures  # noqa: F401  (imports t5.data.tasks)
    except ModuleNotFoundError:
        return False
    from switchx.data.tasks import downstream

    downstream.register_glue_v200()
    return True


def _all_names() -> list[str]:
    import seqio

    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _check_features(provider: Any, config: DataConfig) -> None:
    features = provider.output_features
    missing = [name for name in FEATURES if name not in features]
    if missing:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} has the features "
            f"{_listed(sorted(features))} and lacks {_listed(missing)}: name a task for "
            "encoder-decoders, with 'inputs' and 'targets'."
        )
    inputs, targets = (features[name].vocabulary for name in FEATURES)
    if inputs != targets and config.vocabulary == "default":
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} has one vocabulary for "
            "'inputs' and another for 'targets', and a model has one embedding for both: name a "
            "task that has one, or a VOCABULARY for both."
        )


def _metric_functions(task: Any) -> list[Any]:
    """A task's metric functions; seqio tells what each of them takes by its arguments' names."""
    try:
        return list(task.metric_fns)
    except ValueError as error:
        raise UserError(
            f"the task {task.name!r} has a metric function that seqio does not know how to call: "
            f"{first_line(error)}"
        ) from error


def _check_t5(provider: Any, config: DataConfig) -> None:
    """The metrics of the paper's tasks are t5's: better said now than at the first score."""
    import seqio

    functions = [f for task in seqio.get_subtasks(provider) for f in _metric_functions(task)]
    needed = [f for f in functions if getattr(f, "__module__", "") == t5_metrics.__name__]
    if needed and importlib.util.find_spec("t5") is None:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} is scored by "
            f"{needed[0].__name__!r}, a metric of the package t5, which is not installed{T5}."
        )


def _with_files(provider: Any, config: DataConfig) -> Any:
    """The task or mixture that reads TASK_FILES where these are set."""
    import seqio

    alone = isinstance(provider, seqio.Task)
    found = _changed(provider, lambda task: task_files.with_files(task, config, alone))
    if not alone:
        task_files.say_what_is_missing(provider, found, config)
    return found


def _revoiced(provider: Any, config: DataConfig) -> Any:
    """The task or mixture with the vocabulary of a config, whose sentinels no text makes."""
    from switchx.data.tasks import seqio_vocabularies

    chosen = None if config.vocabulary == "default" else seqio_vocabularies.from_config(config)
    return _changed(provider, lambda task: seqio_vocabularies.with_vocabulary(task, chosen, config))


def _changed(provider: Any, change: Callable[[Any], Any]) -> Any:
    """A task, or a mixture of tasks, each made another, or left out where that is None.

    Itself where none is another.
    """
    import seqio

    from switchx.data.tasks import mixing

    if isinstance(provider, seqio.Task):
        return change(provider)
    tasks = provider.tasks
    own = [change(task) for task in tasks]
    if own == tasks or not any(own):
        return provider
    return mixing.sampled(provider, provider._sample_fn, own)
