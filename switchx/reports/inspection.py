"""An inspection as a page shows it: its numbers with words, colours and the figures of training."""

import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from switchx import storage
from switchx.reports import inspection_words as words
from switchx.reports.colours import categories
from switchx.reports.document import MOST_POINTS, rounded
from switchx.reports.figures import Axis, Figure
from switchx.reports.pictures import thin

MOST_LOADS = 16  # experts of a layer whose loads are drawn over training
_MOST_LAYERS = 12  # of which training is drawn
_CURVES = {
    "entropy": ("Router entropy", "nats", "The less, the surer the router; at most log(experts)."),
    "gate": ("Gate", "probability", "Of the likeliest expert, mean over tokens."),
    "dropped": ("Tokens dropped", "share of tokens", "They found their expert full in training."),
}


def document(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What the JSON file holds: the numbers, rounded, with what they say in words."""
    layers = [
        {
            **layer,
            "words": words.of_layer(layer, numbers["sources"]),
            "experts": [_with_job(expert, layer, numbers) for expert in layer["experts"]],
        }
        for layer in numbers["layers"]
    ]
    made = rounded({**numbers, "layers": layers})
    return {**made, "answer": words.answer(numbers), "name": name_of(numbers["model_dir"])}


def name_of(model_dir: storage.AnyPath) -> str:
    """What a run is called: its directory's last name."""
    return posixpath.basename(str(model_dir).rstrip("/")) or str(model_dir)


def _with_job(
    expert: Mapping[str, Any], layer: Mapping[str, Any], numbers: Mapping[str, Any]
) -> dict[str, Any]:
    found = words.job(expert, layer, numbers)
    return {**expert, "job": found.text, "has_job": found.clear > 0}


def of_training(made: Mapping[str, Any]) -> dict[str, Any]:
    """A report that page.js draws: curves of each layer, and the load of its experts."""
    training, layers = made["training"], [layer["name"] for layer in made["layers"]]
    runs, figures, groups = [], [], []
    runs.append(_run("loss", "the model", {"loss": _curve(training, "loss")}))
    groups.append(_group("the model", 0, 1))
    figures.append(_figure("loss", "Loss", "nats per token", "Of training batches.", ["the model"]))
    for short, (title, label, caption) in _CURVES.items():
        if layers:
            figures.append(_figure(short, title, label, caption, layers[:_MOST_LAYERS]))
    for n, name in enumerate(layers[:_MOST_LAYERS]):
        curves = {short: _curve(training, short, n) for short in _CURVES}
        runs.append(_run(name, name, curves))
        groups.append(_group(name, n, len(layers)))
        figures.append(_loads(training, n, name, runs))
    experts = min(made["model"]["experts"], MOST_LOADS)
    groups += [_group(f"expert {e}", e, experts) for e in range(experts)]
    empty: dict[str, Any] = {"figures": [], "seconds_per_step": {}}
    there = [f for f in figures if any(run["curves"].get(f["curve"]) for run in runs)]
    for run in runs:
        run["curves"] = {name: curve for name, curve in run["curves"].items() if curve}
    return {"report": {"groups": groups, "runs": runs, "figures": there, "laws": []}, "time": empty}


def _loads(training: Mapping[str, Any], n: int, name: str, runs: list) -> dict[str, Any]:
    curve = f"load-{n}"
    experts = 0
    loads = [load[n] for load in training["load"] if load]
    if loads:
        experts = min(len(loads[0]), MOST_LOADS)
    for e in range(experts):
        runs.append(
            _run(f"{name} expert {e}", f"expert {e}", {curve: _curve(training, "load", n, e)})
        )
    caption = "Share of the layer's tokens that each expert was chosen for, before any was dropped."
    groups = [f"expert {e}" for e in range(experts)]
    return _figure(curve, f"Load in {name}", "share of tokens", caption, groups)


def _curve(training: Mapping[str, Any], name: str, *at: int) -> dict[str, list[float]] | None:
    steps, values = [], []
    for step, value in zip(training["step"], training[name], strict=True):
        for index in at:
            value = None if value is None else value[index]
        if value is not None:
            steps.append(step)
            values.append(value)
    if not steps:
        return None
    kept = [thin(np.array(part, float), MOST_POINTS) for part in (steps, values)]
    return {"step": kept[0].tolist(), "value": kept[1].tolist()}


def _run(name: str, group: str, curves: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "group": group, "curves": dict(curves)}


def _group(name: str, number: int, of: int) -> dict[str, Any]:
    light, dark = categories(max(of, number + 1))[number]
    return {"name": name, "light": light, "dark": dark, "dash": "", "runs": [name]}


def _figure(
    curve: str, title: str, label: str, caption: str, groups: Sequence[str]
) -> dict[str, Any]:
    figure = Figure(
        curve, title, caption, Axis("step", of="step"), Axis(label), curve, tuple(groups)
    )
    return rounded(dataclasses.asdict(figure))
