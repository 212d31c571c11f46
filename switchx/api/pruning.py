"""A run of a part of another run's experts: what a task's tokens use, and the losses it costs."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import switchx
from switchx import storage
from switchx.api.corpora import Corpus, corpora, losses, used
from switchx.api.run import Run
from switchx.api.starting import named
from switchx.settings import Binding, Request, Settings, check_fits, load

if TYPE_CHECKING:
    from switchx.evaluation import Use
    from switchx.interop.pruning import Kept, Pruned, Routed
    from switchx.model import Params
    from switchx.training.state import Setup

FORMAT = 1
DOCUMENT = "pruning.json"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be left.

    Attributes:
      experts: of each layer; None is the best one alone, as a dense layer.
      spread: whether that is the average of layers that may have one, and be dense, or more.
      fold_gates: whether experts' outputs shrink by as much as their gates grow.
      criterion: what experts are ranked by, as of `switchx.evaluation.Use.by`.
    """

    experts: int | None
    spread: bool = False
    fold_gates: bool = False
    criterion: str = "load_gate"

    @property
    def flag(self) -> str:
        """What the caller typed."""
        left = "--to_dense" if self.experts is None else f"--experts={self.experts}"
        return left + " --spread" * self.spread + " --fold_gates" * self.fold_gates


@dataclasses.dataclass(frozen=True)
class PrunedRun:
    """A run that is not written yet.

    Attributes:
      vocabulary: the fingerprint of the checkpoint's.
      document: what docs/pruning.md describes, floats as they come.
      said: lines on what has no score.
    """

    settings: Settings
    source: "Pruned"
    step: int
    from_dir: str
    vocabulary: str | None
    document: dict[str, Any]
    said: list[str]

    def write(self, document: str) -> None:
        """Writes the run's directory, with the document as text."""
        from switchx.interop.new_run import bring_vocabulary, write_run

        ours, resolved = self.settings, self.settings.resolved
        to = storage.as_path(ours.model_dir, "--model_dir")
        with storage.new_place(to, "--model_dir") as directory:
            vocabulary = ours.data.vocabulary
            resolved = bring_vocabulary(resolved, vocabulary, self.from_dir, directory, to)
            origin = {"from": "pruned", "path": self.from_dir, "checkpoint": self.step}
            given = (self.step, origin, self.vocabulary)
            write_run(ours.run, self.source, directory, resolved, *given)
            storage.write_whole(directory / DOCUMENT, document)


def prune(
    request: Request,
    from_dir: str,
    asked: Asked,
    texts: Sequence[str] = (),
    tasks: Sequence[str] = (),
    step: int | None = None,
) -> PrunedRun:
    """Chooses the experts that stay, and measures what becomes of the loss.

    Args:
      request: of the new run; its first file is the other's config.gin.
      from_dir: the other run's directory.
      texts, tasks: as of `switchx.Run.inspect`.
      step: of its checkpoint; None is the newest.

    Raises:
      UserError: something does not fit.
    """
    theirs = dataclasses.replace(request, model_dir=from_dir).of_whole_split()
    there, setting = load(theirs), f"--from_dir={from_dir}"
    check_fits(there, asked=True)
    with named(setting):
        Run.of(there).check_model()

    from switchx.evaluation.losses import opened
    from switchx.interop.pruning import Pruned, check_prunable, pruned
    from switchx.training.checkpoints.identity import newest_identity
    from switchx.training.state import Setup

    config = there.run.model
    dense = asked.spread or asked.experts is None
    check_prunable(config, from_dir, asked.experts, dense)
    if not asked.spread:  # what does not fit is said before anything is computed
        _settings(request, there, asked, _kept(config, asked))
    read = corpora(there, texts, tasks)
    with named(setting):
        setup, params, step = opened(there.run, there.model_dir, step)
    uses = used(setup, params, read)
    kept = _kept(config, asked, uses)
    if asked.fold_gates:
        kept = dataclasses.replace(kept, scales=_scales(setup, params, kept, read))
    ours = _settings(request, there, asked, kept)
    new = Setup.of(ours.run, setup.mesh)
    made = pruned(new, config, kept, params)
    evaluations, said = losses((setup, params), (new, made), step, read)
    document = {
        "format": FORMAT,
        "switchx": switchx.__version__,
        "from_dir": from_dir,
        "step": step,
        "asked": asked.flag,
        "criterion": asked.criterion,
        "parameters": {"before": setup.model.num_params, "after": new.model.num_params},
        "layers": [_layer(use, kept, one) for use, one in zip(uses, kept.experts, strict=True)],
        "evaluations": evaluations,
    }
    vocabulary = (newest_identity(there.model_dir) or {}).get("vocabulary")
    source = Pruned(made, step)
    return PrunedRun(ours, source, step, there.model_dir, vocabulary, document, said)


def _kept(config: Any, asked: Asked, uses: "Sequence[Use] | None" = None) -> "Kept":
    """What stays; without uses any experts, as many."""
    from switchx.interop.pruning import keep, routed, spread

    of, n = routed(config), asked.experts or 1
    scores = [use.by(asked.criterion) for use in uses or ()]
    if uses is None:
        scores = [np.zeros(config.switch.num_experts)] * len(of)
    if asked.spread:
        return spread(scores, of, n, config.switch.top_k)
    return keep(scores, of, n, dense=asked.experts is None)


def _scales(
    setup: "Setup", params: "Params", kept: "Kept", read: Sequence[Corpus]
) -> "dict[Routed, tuple[float, ...]]":
    """The probability left of each expert's tokens: by so much their gates grow.

    Gates of several choices are divided by their sum in any case.
    """
    from switchx.evaluation.usage import probability_left

    switch = setup.model.config.switch
    if switch is None or switch.top_k > 1:
        return {}
    E = switch.num_experts
    kept_NE = np.array([np.isin(np.arange(E), [*experts]) for experts in kept.experts.values()])
    batches = itertools.chain.from_iterable(of.batches() for of in read)
    left_NE = probability_left(setup, params, batches, kept_NE)
    return {one: tuple(row) for one, row in zip(kept.experts, left_NE.tolist(), strict=True)}


def _settings(request: Request, there: Settings, asked: Asked, kept: "Kept") -> Settings:
    """Those of the new run, which fit."""
    from switchx.sharding import make_mesh
    from switchx.training.checks import check_run

    fields = kept.fields(there.run.model)
    own = [
        Binding(there.gin.name_to_set(name), value, asked.flag) for name, value in fields.items()
    ]
    settings = load(dataclasses.replace(request, bindings=(*request.bindings, *own)))
    check_run(settings.run, make_mesh(settings.run.mesh))
    return settings


def _layer(use: "Use", kept: "Kept", one: "Routed") -> dict[str, Any]:
    experts = kept.experts[one]
    return {
        "name": use.name,
        "load": use.load_E.tolist(),
        "gate": use.by("gate").tolist(),
        "kept": [*experts],
        "dense": kept.is_dense(one),
        "kept_load": float(use.load_E[[*experts]].sum()),
        "scale": [kept.scales[one][e] for e in experts] if one in kept.scales else None,
    }
