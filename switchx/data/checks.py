"""Says what is missing or wrong about a config's data before any of it is used.

All commands ask here, for streamed and prepared data alike, and for the splits that they read.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from switchx.data import embedded
from switchx.data.config import SPLITS, DataConfig, check_values
from switchx.data.files import check_formats
from switchx.data.masked import masked, refusal
from switchx.data.tasks import lookup, names, task_files, text_files, vocabulary_files
from switchx.data.tasks.ids import Ids
from switchx.data.tasks.objectives import Denoiser, check_span_lengths, denoisers_of
from switchx.data.tasks.rates import check_scaled
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError
from switchx.terminal import counted


def preflight(config: DataConfig, splits: Sequence[str] = SPLITS) -> None:
    """Raises UserError with the one thing that is missing or wrong about these splits' data.

    What can be known without TensorFlow comes first, within moments.
    """
    check_settings(config, splits)
    if config.prepared_dir is not None:
        from switchx.data.prepared.stream import PreparedSets

        for split in splits:
            plans = [info.plan for info in PreparedSets(config, split).infos]
            _check_modes([plan.task for plan in plans], config)
            for plan in plans:
                if config.encoder_alone and plan.cut is not None:
                    raise refusal(plan.task)
        return
    if embedded.reads(config) and config.task_module is None:
        _check_modes(config.names, config)
        embedded.ensure(config)
        check_objective(config)
        return
    if config.mixture_starts and config.pack and "train" in splits:
        raise UserError(
            f"MIXTURE_STARTS={dict(config.mixture_starts)} with PACK=True: streamed examples are "
            "mixed before they are put into rows, so the step that one comes in is not known; "
            "prepare the tasks (PREPARED_DIR), or set PACK=False."
        )
    provider = check_task(config, splits)
    if config.names != (names.PYTHON_DOCS,):  # made here: its text is there
        given = f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}"
        for split in splits:
            _check_one_example(_probe(provider), config, split, given)
    if config.eval_each_task and "validation" in splits:
        _check_each_task(provider, config)


def check_settings(config: DataConfig, splits: Sequence[str] = SPLITS) -> None:
    """The part of `preflight` that takes moments: the settings, and the files that they name.

    Without TensorFlow: of tasks that it would have to be asked about, little is known here.
    """
    check_objective(config, fetched=True)
    if "train" in splits:
        check_scaled(config.mixture_rates, config.mixture_temperature, config.mixture_maximum)
    if config.prepared_dir is None:
        for name in set(config.names) & set(names.TEXT_TASKS):
            _say_shared(_check_text_files(name, config, splits))
        _say_shared(task_files.check_given(config, splits))


def _check_text_files(name: str, config: DataConfig, splits: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split, by the setting that names them."""
    there = {}
    for split in splits:
        found = text_files.check(config, name, split)
        if name != names.MC4_JSON_MIXTURE:  # of its languages some need not be there
            there[found.setting] = list(text_files.check_there(found))
            check_formats(there[found.setting], found.setting)
    return there


def _say_shared(there: Mapping[str, Sequence[str]]) -> None:
    """Says which files are those of two splits: to learn a few by heart is a trial that is made."""
    for one, other in itertools.combinations(there, 2):
        shared = sorted({*there[one]} & {*there[other]})
        if shared:
            task_files.say_once(
                f"{other} reads {counted(len(shared), 'file')} of {one} too, such as "
                f"{shared[0]!r}: what is measured there is what was trained on"
            )


def check_objective(config: DataConfig, fetched: bool = False) -> None:
    """Raises UserError where rows of a config's lengths cannot be made with its vocabulary.

    Without TensorFlow, and without reading data. A prepared set's lengths are compared with it.

    Args:
      fetched: whether a vocabulary at a URL is read for it.
    """
    check_values(config)
    own = [name for name in config.names if name in names.SPAN_CORRUPTION]
    if config.encoder_alone and own:
        raise refusal(own[0])
    ids = vocabulary_files.known_ids(config, fetched) if own and not config.prepared_dir else None
    if ids is not None:
        length, modes = config.feature_lengths["inputs"], config.mode_tokens
        denoisers = [one for name in own for one in denoisers_of(name, length, modes)]
        vocabulary = vocabulary_files.known(config, fetched) if modes else None
        _check_rows(denoisers, ids, vocabulary, config)


def _check_rows(
    denoisers: Sequence[Denoiser], ids: Ids, vocabulary: Vocabulary | None, config: DataConfig
) -> None:
    """Raises UserError where rows cannot be made in each of these ways.

    Where modes are tokens and the vocabulary is not read yet, nothing is known.
    """
    modes = sorted({one.mode for one in denoisers if one.mode})
    if modes and vocabulary is None:
        return
    tokens = {mode: vocabulary.encode(mode) for mode in modes} if vocabulary else {}
    for mode, own in tokens.items():
        if ids.unknown in own:
            raise UserError(
                f"MODE_TOKENS=True, and VOCABULARY={config.vocabulary!r} has no pieces for "
                f"{mode!r}: give one that has, or leave MODE_TOKENS False."
            )
    sized = [(one, len(tokens.get(one.mode, ()))) for one in denoisers]
    if sized:
        check_span_lengths(config.feature_lengths, sized, ids.sentinels.count, config.vocabulary)


def known_ids(config: DataConfig, fetched: bool = False) -> Ids | None:
    """The ids of what a config trains on, a prepared set's where that is to say it.

    None where they are not known without building, asking seqio or, unless `fetched`, fetching.

    Raises:
      UserError: a vocabulary that lies here cannot be read.
    """
    if config.prepared_dir is None or config.vocabulary != "default":
        return vocabulary_files.known_ids(config, fetched)
    from switchx.data.prepared.sets import set_infos

    try:
        plans = [info.plan for info in set_infos(config)]
    except UserError:  # it is said where the set is read
        return None
    return Ids.as_t5(max(plan.vocab_size for plan in plans), 0, plans[0].eos_id)


def _check_text_is_read(provider: Any, config: DataConfig) -> None:
    """TEXT_FILES beside another task's name would be trained on by nobody."""
    import seqio

    read = {task.name for task in seqio.get_subtasks(provider)}
    if config.text_files and not read.intersection(names.OWN_TEXT):
        raise UserError(
            f"TEXT_FILES={dict(config.text_files)!r} is what {names.TEXT!r} reads, and "
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} is another: name that task, or "
            "leave TEXT_FILES unset."
        )


def asked_ids(config: DataConfig) -> Ids | None:
    """What a task of the user's says of its vocabulary, which TensorFlow takes seconds to tell.

    None where it cannot be asked here, or is none that alone knows it.

    Raises:
      UserError: it needs more sentinels at these lengths than there are.
    """
    others = config.mixture_or_task_name in (names.NO_TASK, "") or config.prepared_dir is not None
    if others or vocabulary_files.chosen(config) != "default":
        return None
    load_tensorflow()
    from switchx.data.tasks import seqio_vocabularies

    try:
        provider = lookup.find_provider(config)
        ids = seqio_vocabularies.ids_of(provider.output_features["targets"].vocabulary, config)
    except UserError:  # it is said where its data is read
        return None
    _check_spans(provider, ids, None, config)
    return ids


def check_task(config: DataConfig, splits: Sequence[str]) -> Any:
    """Returns the task or mixture of a config whose lengths, vocabulary and sources fit.

    Raises:
      UserError: one of them does not; nothing has been read but the vocabulary.
    """
    load_tensorflow()
    import seqio

    from switchx.data.tasks import mixing, sources

    provider = lookup.find_provider(config)
    _check_text_is_read(provider, config)
    vocabulary = lookup.open_vocabulary(config, provider)
    _check_spans(provider, vocabulary.ids, vocabulary, config)
    _check_modes([task.name for task in seqio.get_subtasks(provider)], config)
    sources.check_sources(provider, config, splits)
    if "train" in splits:
        mixing.join_steps(provider, config)
    return provider


def _check_spans(
    provider: Any, ids: Ids, vocabulary: Vocabulary | None, config: DataConfig
) -> None:
    """Raises UserError where a task cannot corrupt rows of these lengths with these sentinels."""
    import seqio

    from switchx.data.tasks.span_corruption import denoiser_of

    found = {task.name: denoiser_of(task) for task in seqio.get_subtasks(provider)}
    denoisers = {name: one for name, one in found.items() if one is not None}
    if config.encoder_alone and denoisers:
        raise refusal(next(iter(denoisers)))
    _check_rows(list(denoisers.values()), ids, vocabulary, config)


def _check_modes(tasks: Sequence[str], config: DataConfig) -> None:
    """MODE_TOKENS with tasks that have no modes would be without effect."""
    if config.mode_tokens and names.DENOISER_OF.keys().isdisjoint(tasks):
        raise UserError(
            f"MODE_TOKENS=True is for UL2's denoisers, and MIXTURE_OR_TASK_NAME="
            f"{config.mixture_or_task_name!r} has none: name a mixture of them, such as "
            f"{next(iter(names.UL2))!r}, or leave MODE_TOKENS False."
        )


def _probe(provider: Any) -> Any:
    """One task stands for all of mC4, which takes minutes to build, and for all that read the same
    text; else the provider itself."""
    return provider.tasks[0] if provider.name in {*names.MC4_MIXTURES, *names.UL2} else provider


def _check_each_task(provider: Any, config: DataConfig) -> None:
    """A task that cannot be evaluated would otherwise end the run at its first evaluation."""
    import seqio

    evaluated = lookup.evaluated_tasks(config)
    for task in (task for task in seqio.get_subtasks(provider) if task.name in evaluated):
        given = f"EVAL_EACH_TASK=True needs every task, and {task.name!r}"
        _check_one_example(task, config, "validation", given)


def _check_one_example(provider: Any, config: DataConfig, split: str, given: str) -> None:
    """Reads one example: shows broken shards and empty corpora within seconds."""
    from switchx.data.streamed.pipeline import one_pass, reporting_errors

    with reporting_errors(provider, config):
        rows = list(one_pass(provider, config, split).take(1))
    found = len(rows)
    if config.encoder_alone:
        for row in rows:
            masked({name: x.numpy()[None] for name, x in row.items()}, mask_id=0, config=config)
    if not found:
        raise UserError(
            f"{given} gives no example for the split {split!r}: its files are empty or hold too "
            "little text."
        )
