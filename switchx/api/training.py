"""Training, from Python and from the command."""

import dataclasses
import functools
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchx import data, storage
from switchx.api.given import configured, listed
from switchx.api.run import Run
from switchx.api.scoring import check_scores, scorer, task_batches
from switchx.api.starting import Beginning, beginning, check_other
from switchx.api.teaching import taught
from switchx.settings import Settings, changed_settings, check_fits, check_idle_of_teacher
from switchx.writers import RunFacts, Writer, Writers, check_installed, check_writer

if TYPE_CHECKING:
    from switchx.training import Feed, TrainResult
    from switchx.training.profile import ProfileSteps


def train(
    settings: Settings, profile_steps: str | None = None, writers: Sequence[Writer] = ()
) -> Run:
    """Trains as `switchx train` does, from the newest checkpoint if there is one.

    Args:
      profile_steps: "10:15" writes a profile of these steps into the run's directory.
      writers: get what the run measures, beside those of METRIC_WRITERS.

    Raises:
      UserError: before anything is compiled, if the settings do not fit.
      RunError: the run could not go on.
      KeyboardInterrupt, SystemExit: a signal ended it; what it had done is saved.
    """
    settings = configured(settings)
    with metric_writers(settings, writers) as opened:
        result, _ = train_run(settings, profile_steps=profile_steps, writers=opened)
    if result.stopped_by is not None:
        stopped = result.stopped_by
        raise KeyboardInterrupt if stopped == signal.SIGINT else SystemExit(128 + stopped)
    return Run.of(settings)


def metric_writers(settings: Settings, own: Sequence[Writer] = ()) -> Writers:
    """The run's writers, to be closed by the caller; they do nothing before the run begins.

    Raises:
      UserError: a package that one of them needs is not installed, or one is no writer.
    """
    from switchx.training.metrics import layer_names

    names = settings.run.trainer.metric_writers
    check_installed(names)
    own = listed("writers", own)
    for writer in own:
        check_writer(writer)
    facts = RunFacts(
        settings.model_dir,
        settings.resolved,
        {name: _plain(value) for name, value in sorted(settings.gin.settings().items())},
        layer_names(settings.run.model),
    )
    return Writers(facts, names, own)


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else repr(value)


def train_run(
    settings: Settings,
    token: str = "",
    begun: Callable[[list[str]], None] = lambda changes: None,
    profile_steps: str | None = None,
    writers: Writers | None = None,
) -> "tuple[TrainResult, list[Path]]":
    """Trains on all hosts of a job; the cheapest checks come first. Returns the pictures too.

    Args:
      token: a word that the hosts have in common (`switchx.hosts.joined`).
      begun: is called once the directory is this job's, with a line on each setting that is not
        what it was at the run's last start.
      profile_steps: see `train`.
      writers: of the run (`metric_writers`); they get the pictures too.
    """
    from switchx.training.checkpoints.refusals import check_resume

    storage.writable_path(settings.model_dir, "MODEL_DIR")
    check_fits(settings)
    check_idle_of_teacher(settings)
    data.check_settings(settings.data)
    if settings.objective.teacher is not None:
        check_other(settings.objective.teacher, settings.model_dir, "TEACHER")
    settings = dataclasses.replace(settings, run=taught(settings))
    begins = beginning(settings)
    steps = _profile_steps(settings, begins.run.trainer.train_steps, profile_steps)
    check_resume(begins.run, settings.model_dir, None, _check_position(settings))

    from switchx import hosts, training
    from switchx.reports import pictures
    from switchx.training.metrics import layer_names
    from switchx.training.start import FRESH

    writers = writers or Writers()
    result = training.train(
        begins.run,
        settings.model_dir,
        _feed(settings, begins, begun),
        settings.resolved,
        token,
        begins.warm or FRESH,
        profile_steps=steps,
        writers=writers,
    )
    names = layer_names(settings.run.model)
    drawn = pictures.draw(settings.model_dir, names) if hosts.is_first() else []
    for path in drawn:
        writers.picture(result.step, path.stem, storage.read_bytes(path, "MODEL_DIR"))
    if result.stopped_by is not None:
        writers.close("stopped")
    return result, drawn


def _check_position(settings: Settings) -> Callable[..., Any]:
    return functools.partial(data.check_position, settings.data)


def _feed(settings: Settings, begins: Beginning, begun: Callable[[list[str]], None]) -> "Feed":
    """What a run is fed, and what is checked before: see `train_run`."""
    from switchx import evaluation
    from switchx.training import Feed

    def check() -> str:
        begun(changed_settings(settings))
        return _check_data(settings, begins)

    whole = dataclasses.replace(settings.data, eval_batches=None)
    logits = settings.objective.logits if begins.run.batch.taught else None
    make_scorer = functools.partial(scorer, settings, settings.model_dir)
    return Feed(
        stream=functools.partial(
            data.train_stream, dataclasses.replace(settings.data, logits=logits)
        ),
        evaluation=lambda setup: evaluation.Evaluator(
            setup,
            functools.partial(data.eval_batches, whole),
            task_batches(settings, whole),
            settings.data.eval_batches,
            data.num_examples(whole),
            make_scorer=make_scorer if settings.scores.during_training else None,
        ),
        check=check,
        check_position=_check_position(settings),
    )


def _check_data(settings: Settings, begins: Beginning) -> str:
    """The vocabulary's digest, once everything that only the data can tell is known to fit."""
    from switchx.training.checkpoints.refusals import check_resume
    from switchx.training.checks import check_vocabulary

    run = begins.run
    digest = data.vocabulary_digest(settings.data)
    check_resume(run, settings.model_dir, digest, _check_position(settings))
    if begins.warm is not None:
        begins.warm.check_vocabulary(digest)
    if run.teacher is not None:
        run.teacher.check_vocabulary(digest)
    check_vocabulary(settings.run.model.vocab_size, data.vocabulary_size(settings.data))
    data.preflight(settings.data)
    check_scores(settings)
    return digest


def _profile_steps(settings: Settings, train_steps: int, text: str | None) -> "ProfileSteps | None":
    from switchx.training.checkpoints.identity import saved_steps
    from switchx.training.profile import ProfileSteps

    if text is None:
        return None
    steps, saved = ProfileSteps.parse(text), saved_steps(settings.model_dir)
    steps.check(train_steps, saved[-1] if saved else 0)
    return steps
