"""What a checkpoint's experts do with some texts, as plain numbers: see `switchx inspect`."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import switchx
from switchx import hosts
from switchx.data import Vocabulary
from switchx.errors import UserError
from switchx.evaluation import ablation
from switchx.evaluation.inspection.agreement import flows, saturation
from switchx.evaluation.inspection.kinds import KINDS
from switchx.evaluation.inspection.layers import of_layer
from switchx.evaluation.inspection.pieces import Pieces
from switchx.evaluation.inspection.seen import Seen, look
from switchx.evaluation.losses import Evaluator, opened
from switchx.model import Params
from switchx.terminal import Progress
from switchx.training.batches import HostBatch
from switchx.training.checkpoints import restore_params
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.checkpoints.reading import saved_step
from switchx.training.config import RunConfig
from switchx.training.run_reader import metric_rows
from switchx.training.state import Setup

FORMAT = 1
MOST_TOKENS = 100_000  # of both stacks, padding counted, over all sources
MOST_TAKEN_OUT = 256  # experts, the fullest of each layer
_TAKEN_OUT_TOKENS = 1_000_000  # evaluated to take experts out, all together
_SHOWN = 60_000  # tokens times layers of the text that is shown
_LEAST_SHOWN, _MOST_SHOWN = 1_500, 6_000
_MOST_FLOWS, _MOST_EARLIER = 400, 3
_TRAINING = {"router_entropy": "entropy", "gate_mean": "gate", "dropped_fraction": "dropped"}


class Source(NamedTuple):
    """Where text comes from.

    Attributes:
      batches: of evaluation's shapes, at least one.
      said: how much of what they are; "" where there is no more to say than the name.
      from_the_start: whether a share of them is the first ones; else they are spread evenly.
    """

    name: str
    batches: Iterable[HostBatch]
    said: str = ""
    from_the_start: bool = True


def inspect(
    run: RunConfig,
    model_dir: str,
    sources: Sequence[Source],
    vocabulary: Vocabulary,
    step: int | None = None,
    earlier: int | None = None,
) -> dict[str, Any]:
    """Reads sources with a checkpoint and says what became of their tokens.

    Shows how far the evaluations without single experts are.

    Args:
      step: of the checkpoint; None is the newest.
      earlier: the step of a checkpoint to compare its choices with; None is all earlier ones, of
        many some.

    Returns:
      What docs/inspect.md describes, floats as they come. Of a dense model there are no layers.

    Raises:
      UserError: a checkpoint is not there, or a source has no text.
    """
    compared = _earlier(model_dir, saved_step(model_dir, step), earlier)
    setup, params, step = opened(run, model_dir, step)
    read = _read(sources, setup)
    seen, pieces = look(setup, params, read), Pieces(vocabulary)
    switch = setup.model.config.switch
    names = [source.name for source in sources]
    layers = [
        of_layer(s, n, pieces, names, switch) for s in seen for n in range(len(s.layers)) if switch
    ]
    loss = _take_out(setup, params, read, layers)
    return {
        "format": FORMAT,
        "switchx": switchx.__version__,
        "model_dir": str(model_dir),
        "step": step,
        "model": _model(setup),
        "loss": loss,
        "sources": [_source(n, source, seen) for n, source in enumerate(sources)],
        "kinds": list(KINDS),
        "kinds_of_tokens": {s.name: _shares(pieces.kinds_of(s.token_T), len(KINDS)) for s in seen},
        "layers": layers,
        "flows": _flows(seen, pieces),
        "saturation": _saturation(setup, model_dir, read, seen, compared),
        "training": _training(model_dir),
        "text": _text(seen, pieces),
        "pieces": pieces.texts,
    }


def _earlier(model_dir: str, step: int, earlier: int | None) -> list[int]:
    there = [other for other in saved_steps(model_dir) if other < step]
    if earlier is None:
        picked = np.unique(np.linspace(0, len(there) - 1, _MOST_EARLIER).astype(int))
        return [there[n] for n in picked] if there else []
    if earlier not in there:
        known = ", ".join(map(str, there)) or "none"
        raise UserError(
            f"--earlier={earlier} is no checkpoint before step {step} in "
            f"MODEL_DIR={str(model_dir)!r}: those there: {known}."
        )
    return [earlier]


def _read(sources: Sequence[Source], setup: Setup) -> list[list[HostBatch]]:
    """As many batches of each source as it may have."""
    share = max(1, MOST_TOKENS // (_tokens(setup) * len(sources)))
    read = []
    for source in sources:
        if source.from_the_start:
            batches = list(itertools.islice(source.batches, share))
        else:
            batches = _spread(list(source.batches), share)
        if not batches:
            raise UserError(f"{source.name!r} has no text to look at: name another source.")
        read.append(batches)
    return read


def _tokens(setup: Setup) -> int:
    """Of a batch."""
    shape = setup.run.eval_batch
    return shape.batch_size * (shape.input_length + shape.target_length)


def _spread(batches: list[HostBatch], most: int) -> list[HostBatch]:
    picked = np.unique(np.linspace(0, len(batches) - 1, most).round().astype(int))
    return [batches[n] for n in picked] if batches else []


def _model(setup: Setup) -> dict[str, Any]:
    config = setup.model.config
    switch = config.switch
    return {
        "parameters": setup.model.num_params,
        "layers": {name: shape.num_layers for name, shape in config.stacks.items()},
        "experts": switch.num_experts if switch else 0,
        "top_k": switch.top_k if switch else 0,
        "eval_capacity_factor": switch.eval_capacity_factor if switch else None,
        "drops": bool(switch and not switch.dropless),
    }


def _source(number: int, source: Source, seen: Sequence[Seen]) -> dict[str, Any]:
    tokens = {s.name: int(np.sum(s.source_T == number)) for s in seen}
    examples = np.unique(np.concatenate([s.example_T[s.source_T == number] for s in seen]))
    last = seen[-1]
    nats = last.nats_T[(last.source_T == number) & (last.target_T > 0)]
    loss = float(nats.mean()) if len(nats) else None
    found = {"name": source.name, "said": source.said, "examples": len(examples)}
    return {**found, "tokens": tokens, "loss": loss}


def _shares(kind_T: np.ndarray, kinds: int) -> list[float]:
    return (np.bincount(kind_T, minlength=kinds) / max(len(kind_T), 1)).tolist()


def _take_out(
    setup: Setup, params: Params, read: Sequence[Sequence[HostBatch]], layers: list[dict[str, Any]]
) -> dict[str, Any]:
    """Fills in what each expert's absence adds to the loss; says on how many tokens."""
    parts = ablation.experts_of(setup.model)
    most = MOST_TAKEN_OUT // max(len(parts), 1)
    taken = []
    for of_layer_, layer in zip(parts, layers, strict=True):
        fullest = sorted(layer["experts"], key=lambda expert: -expert["load"])[:most]
        taken += [(of_layer_[expert["expert"]], expert) for expert in fullest]
    every = [batch for batches in read for batch in batches]
    batches = _spread(every, max(1, _TAKEN_OUT_TOKENS // (_tokens(setup) * max(len(taken), 1))))
    total = len(batches) * (1 + len(taken))
    with Progress(total, "batches", shown=hosts.is_first()) as progress:
        evaluator = Evaluator(setup, lambda: batches, read=progress.advance)
        whole, losses = ablation.losses_without(evaluator, params, [part for part, _ in taken])
    for (_, expert), loss in zip(taken, losses, strict=True):
        expert["nats"] = loss - whole
    return {"nats": whole, "examples": evaluator.share.examples, "experts_taken_out": len(taken)}


def _flows(seen: Sequence[Seen], pieces: Pieces) -> list[dict[str, Any]]:
    """Between the experts of successive layers of a stack; kinds of tokens come first."""
    found = []
    for stack in seen:
        before, name = pieces.kinds_of(stack.token_T), "kinds"
        for layer, main_T in zip(stack.layers, stack.main, strict=True):
            rows, others = flows(before, main_T, _MOST_FLOWS)
            found.append(
                {"stack": stack.name, "from": name, "to": layer, "flows": rows, "others": others}
            )
            before, name = main_T, layer
    return found


def _saturation(
    setup: Setup,
    model_dir: str,
    read: Sequence[Sequence[HostBatch]],
    seen: Sequence[Seen],
    earlier: Sequence[int],
) -> list[dict[str, Any]]:
    switch = setup.model.config.switch
    if switch is None:
        return []
    found: list[dict[str, Any]] = []
    for step in earlier:
        split = setup.run.mesh.fully_sharded
        params, _ = restore_params(setup.model, model_dir, setup.mesh, step, split)
        layers = [
            {"name": name, **saturation(now_T, then_T, switch.num_experts)._asdict()}
            for now, then in zip(seen, look(setup, params, read), strict=True)
            for name, now_T, then_T in zip(now.layers, now.main, then.main, strict=True)
        ]
        found.append({"step": step, "layers": layers})
    return found


def _training(model_dir: str) -> dict[str, Any]:
    """Of the rows of training: steps, losses, and [layers] or [layers, experts] of each step."""
    rows = [row for row in metric_rows(model_dir) if row["split"] == "train"]
    found: dict[str, Any] = {name: [row.get(name) for row in rows] for name in ("step", "loss")}
    for name, short in {**_TRAINING, "load": "load"}.items():
        found[short] = [row.get(name) for row in rows]
    return found


def _text(seen: Sequence[Seen], pieces: Pieces) -> list[dict[str, Any]]:
    """Some examples of each source, token by token, as many as a page can hold."""
    layers = max(1, sum(len(stack.layers) for stack in seen))
    room = min(max(_SHOWN // layers, _LEAST_SHOWN), _MOST_SHOWN)
    numbers = np.unique(seen[-1].source_T)
    found: list[dict[str, Any]] = []
    for source in numbers.tolist():
        left = room // len(numbers)
        for example in np.unique(seen[-1].example_T[seen[-1].source_T == source]):
            if left <= 0:
                break
            row = {s.name: _shown(s, example, pieces) for s in seen}
            left -= sum(len(part["pieces"]) for part in row.values())
            found.append({"source": source, **row})
    return found


def _shown(stack: Seen, example: int, pieces: Pieces) -> dict[str, Any]:
    at = np.flatnonzero(stack.example_T == example)
    choices = stack.choices
    row: dict[str, Any] = {"pieces": [pieces.number(token) for token in stack.token_T[at]]}
    if stack.target_T.any():
        row["writes"] = [pieces.number(t) if t else -1 for t in stack.target_T[at].tolist()]
        row["nats"] = [round(float(nats), 2) for nats in stack.nats_T[at]]
    layers = [
        {
            "expert": stack.main[n][at].tolist(),
            "likely": choices.likely_NBLK[n][at].tolist(),
            "prob": np.round(choices.prob_NBLK[n][at].astype(float), 3).tolist(),
            "kept": "".join(map(str, (~stack.dropped[n][at]).astype(int))),
        }
        for n in range(len(stack.layers))
    ]
    return {**row, "layers": layers}
