"""What a finished run and an evaluation show, in plain words."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from switchx import data, storage
from switchx.api import Run
from switchx.evaluation import blanks, predictions
from switchx.reports.peaks import Peak, peaks
from switchx.reports.pictures import DEAD_LOAD
from switchx.terminal import counted, table
from switchx.training import TrainResult

_JUDGED_BATCHES = 20  # where evaluations read all
JUDGED_ROWS = 64  # of held-out text, whose blanks are filled
SHOWN_ROWS, BLANKS_PER_ROW = 5, 2
_ASKED = 56  # characters of what a task asks, the last ones
_NO_LINE = ("tasks", "examples_in_split", "whole_split", "scores", "averages", "said")
_COLUMNS = ("loss", "accuracy", "perplexity", "unigram_entropy")


def show(run: Run, result: TrainResult, drawn: Sequence[Path]) -> str:
    """Prints the end of `switchx train`; returns the part that shows what the model answers."""
    lines, samples = ["", _what_was_done(run.config.model_dir, result)], list[str]()
    if result.validation:
        lines += _quality(result.validation)
    scored = peaks(run.metrics)
    lines += _experts(result) + _peak_lines(scored)
    if scored:
        samples = _answers(run.config.model_dir, scored)
    elif jax.process_count() == 1:  # answers are generated on one host: `switchx infer` has them
        samples = _held_out(run, result.validation)
    lines += [*samples, *(f"  picture             {path}" for path in drawn)]
    print("\n".join(lines))
    return "\n".join(samples)


def _what_was_done(model_dir: str, result: TrainResult) -> str:
    if result.first_step < result.step:
        return f"Trained {counted(result.step, 'step')} in {model_dir}"
    return (
        f"Nothing was trained: {model_dir} is at step {result.step:,} already, and this is its "
        "result (TRAIN_STEPS says how far it goes)"
    )


def _quality(values: dict[str, float]) -> list[str]:
    return [
        f"  validation loss     {values['loss']:.4f} nats per token",
        f"  unigram entropy     {values['unigram_entropy']:.4f} nats, "
        "what knowing only the tokens' frequencies gives",
        f"  accuracy            {values['accuracy']:.1%} of the target tokens",
    ]


def _experts(result: TrainResult) -> list[str]:
    if result.load is None or result.load.shape[-1] == 1:
        return []
    shares = [share * len(layer) for layer in result.load.tolist() for share in layer]
    dead = sum(share < DEAD_LOAD for share in shares)
    return [
        f"  experts             least used {min(shares):.2f} of an equal share, "
        f"most used {max(shares):.2f}; {dead or 'none'} dead",
    ]


def _peak_lines(scored: Sequence[Peak]) -> list[str]:
    """The tasks' scores at the end and at their best."""
    rows = [(of.task, of.metric, of.last, of.best, of.step) for of in scored]
    head = ("score of", "", "last", "best", "at step")
    return [f"  {line}" for line in ("", *table([head, *rows]), "")] if rows else []


def _answers(model_dir: str, scored: Sequence[Peak]) -> list[str]:
    """Some of the last answers to each of the first tasks that ask for them."""
    lines = []
    for task, step in dict.fromkeys((of.task, of.last_step) for of in scored):
        path = predictions.path_of(model_dir, task, step)
        content = storage.read_if_there(path, "MODEL_DIR") or b""
        answers = [json.loads(line) for line in content.splitlines()[:SHOWN_ROWS]]
        shown = [_answer_line(answer) for answer in answers if "output" in answer]
        lines += [f"  answers to {task}, and what was right", *shown] if shown else []
        if len(lines) > SHOWN_ROWS * 2:
            break
    return lines


def _answer_line(answer: dict[str, Any]) -> str:
    asked = " ".join(str(answer["inputs"]).split())[-_ASKED:]
    given, right = (" ".join(str(answer[of]).split()) for of in ("output", "target"))
    return f"    {asked:>{_ASKED}} : {_short(given) or '-'} | {_short(right)}"


def _held_out(run: Run, values: dict[str, float]) -> list[str]:
    """How well the model fills the blanks of validation text, and some of them to look at."""
    if run.config.run.model.encoder_alone:  # its accuracy is that of single tokens masked
        return []
    config = run.config.data
    most = _JUDGED_BATCHES if config.eval_batches is None else config.eval_batches
    alone = dataclasses.replace(config, pack=False, eval_batches=most)  # an example in a row
    batches = list(data.eval_batches(alone))
    lines = []
    factor = blanks.nats_to_bits_per_byte(batches, run.vocabulary)
    if factor and values:
        lines.append(
            f"  bits per byte       {factor * values['loss']:.2f} of the text in the blanks; "
            f"{factor * values['unigram_entropy']:.2f} from the tokens' frequencies"
        )
    decoding = run.decoding()
    filled = blanks.fill(
        batches, run.vocabulary, lambda rows: run.predict(rows, decoding), JUDGED_ROWS
    )
    judged = list(itertools.chain(*filled))
    if not judged:
        return lines
    exact = sum(blank.is_exact for blank in judged)
    return [
        *lines,
        f"  blanks filled       {exact / len(judged):.1%} of {len(judged):,} exactly right",
        "                      (text: what the model put there | what stood there)",
        *(_line(blank) for row in filled[:SHOWN_ROWS] for blank in row[:BLANKS_PER_ROW]),
    ]


def _line(blank: blanks.Blank) -> str:
    return (
        f"    {blank.before:>36} ____ {blank.after:<36} : "
        f"{_short(blank.given) or '-'} | {_short(blank.truth)}"
    )


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def evaluation_lines(values: dict[str, Any]) -> list[str]:
    """A line for each scalar of `Run.evaluate`, then a table of the tasks evaluated alone."""
    scalars = {name: value for name, value in values.items() if name not in _NO_LINE}
    width = max(map(len, scalars))
    lines = []
    for name, value in scalars.items():
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        lines.append(f"{name:<{width}}  {_examples(values) if name == 'examples' else shown}")
    tasks = values.get("tasks", {})
    rows = [(task, _examples(of), *(of[c] for c in _COLUMNS)) for task, of in tasks.items()]
    if rows:
        lines += ["", *table([("task", "examples", *_COLUMNS), *rows])]
    return lines + _score_lines(values.get("scores", {}), values.get("averages", {}))


def _score_lines(scores: dict[str, dict[str, float]], averages: dict[str, float]) -> list[str]:
    """A table of the tasks' own metrics, and of their averages."""
    rows = [(task, name, value) for task, of in scores.items() for name, value in of.items()]
    rows += [("all tasks", name, value) for name, value in averages.items()]
    return ["", *table([("task", "metric", "score"), *rows])] if rows else []


def ablation_lines(values: dict[str, Any]) -> list[str]:
    """The table of `Run.ablate`, the whole model first."""
    rows = [("", "loss", "nats"), ("the whole model", values["loss"], "")]
    rows += [(f"without {of['part']}", of["loss"], of["nats"]) for of in values["parts"]]
    return [f"step {values['step']:,}, {_examples(values)} examples", "", *table(rows)]


def _examples(values: dict[str, Any]) -> str:
    """How many were read of how many."""
    read, there = values["examples"], values["examples_in_split"]
    return f"{read:,} of more" if there is None else f"{read:,} of {there:,}"


def plain(value: Any) -> Any:
    """The same as any JSON reader takes it: None where a figure is not finite."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
