"""What a pruned model is to be good at: tasks and texts, how they use experts, what they cost."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from switchx import data
from switchx.api.scoring import measures
from switchx.errors import UserError
from switchx.settings import Settings
from switchx.terminal import Progress

if TYPE_CHECKING:
    from switchx.evaluation import Use
    from switchx.model import Params
    from switchx.training.batches import HostBatch
    from switchx.training.state import Setup


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What experts are chosen by, and the losses measured on.

    Attributes:
      how: it is evaluated, as `switchx.evaluation.evaluate_params` takes it.
    """

    name: str
    how: dict[str, Any]

    def batches(self) -> "Iterable[HostBatch]":
        return itertools.islice(self.how["make_batches"](), self.how["limit"])


def corpora(there: Settings, texts: Sequence[str], tasks: Sequence[str]) -> list[Corpus]:
    """One for each text and each task; without either, the run's own task.

    Raises:
      UserError: one cannot be read, or is of another vocabulary than the model.
    """
    found = [_of_text(there, path) for path in texts] + [_of_task(there, name) for name in tasks]
    own = there.data.mixture_or_task_name
    return found or [Corpus(own, measures(there, None))]


def _of_text(there: Settings, path: str) -> Corpus:
    batches = data.text_batches(data.read_text(path, "--text"), there.data)
    return Corpus(path, {"make_batches": lambda: batches, "limit": there.data.eval_batches})


def _of_task(there: Settings, name: str) -> Corpus:
    from switchx.training.checkpoints.refusals import check_model

    of_task = there.data.of_task(name)
    check_model(there.run.model, there.model_dir, data.vocabulary_digest(of_task))
    return Corpus(name, measures(dataclasses.replace(there, data=of_task), None))


def used(setup: "Setup", params: "Params", corpora: Sequence[Corpus]) -> "list[Use]":
    """How much their tokens use each expert, layer by layer; each corpus counts alike.

    Raises:
      UserError: one uses no expert of a layer.
    """
    from switchx.evaluation.usage import mean_use, usage

    found = []
    for of in corpora:
        with Progress(of.how["limit"], "batches") as progress:
            uses = usage(setup, params, of.batches(), progress.advance)
        for use in uses:
            if not use.load_E.any():
                raise UserError(
                    f"{of.name!r} uses no expert of {use.name}, since no token of it comes there: "
                    "choose experts by another --task or --text."
                )
        found.append(uses)
    return mean_use(found)


def losses(
    before: "tuple[Setup, Params]",
    after: "tuple[Setup, Params]",
    step: int,
    corpora: Sequence[Corpus],
) -> tuple[list[dict[str, Any]], list[str]]:
    """What `switchx eval` says of two models at a step.

    Returns:
      Of each corpus its "name", and "before" and "after" as of `evaluate_params`; lines on what
      has no score.
    """
    from switchx.evaluation import evaluate_params

    models = {"before": before, "after": after}
    found: list[dict[str, Any]] = [
        {
            "name": of.name,
            **{when: evaluate_params(*model, step, **of.how) for when, model in models.items()},
        }
        for of in corpora
    ]
    said = [line for row in found for when in models for line in row[when].pop("said", ())]
    return found, [*dict.fromkeys(said)]
