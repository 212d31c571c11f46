"""Run directories that no trainer wrote: losses by a closed form, so every answer is known.

The loss at a step is FLOOR + SCALE (speed step)^-POWER: a run of speed 2 comes to each loss in half
the steps of one of speed 1.
"""

import functools
import json
import math
from pathlib import Path

from switchx import settings

FLOOR, SCALE, POWER = 2.0, 8.0, 0.25
LAYERS = 2
SETTINGS = {
    "VOCABULARY": "bytes",
    "MIXTURE_OR_TASK_NAME": "python_docs_span_corruption",
    "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 32},
    "ENCODER_GROUP_SIZE": 64,
    "DECODER_GROUP_SIZE": 32,
    "BATCH_SIZE": 8,
    "LOG_PERIOD": 10,
    "ModelConfig.vocab_size": 384,
    "ModelConfig.d_model": 16,
    "ModelConfig.d_ff": 32,
    "ModelConfig.num_layers": 2,
}
MODELS = {1: "configs/models/tiny_dense.gin"}  # else tiny_switch


def loss(step, speed):
    return FLOOR + SCALE * (speed * step) ** -POWER


def make_run(
    path,
    experts=1,
    seed=0,
    speed=1.0,
    steps=1000,
    every=50,
    until=None,
    rate=10.0,
    began=1e9,
    tasks=None,
    **changed,
):
    """Writes a run directory of format 1.

    Args:
      speed: of learning.
      every: steps between evaluations.
      until: the last step measured, of a run that goes on.
      rate: steps a second.
      tasks: of a mixture, the speed of learning each.
      changed: settings.
    """
    path = Path(path)
    path.mkdir(parents=True)
    (path / "run.json").write_text('{"format": 1, "switchx": "0.2.0"}')
    (path / "start.json").write_text('{"from": "fresh", "step": 0, "optimizer": "fresh"}')
    text = config(experts, steps, every, tuple(changed.items()))
    text = text.replace("SEED = 0", f"SEED = {seed}")
    (path / "config.gin").write_text(
        text.replace("MODEL_DIR = 'run'", f"MODEL_DIR = {str(path)!r}")
    )
    with (path / "metrics.jsonl").open("w") as file:
        for row in rows(experts, speed, until or steps, every, rate, began, tasks or {}):
            file.write(json.dumps(row) + "\n")
    return path


@functools.cache
def config(experts, steps, every, changed):
    """The text of config.gin; lists and dictionaries cannot be changed."""
    values = {**SETTINGS, "TRAIN_STEPS": steps, "EVAL_PERIOD": every, **dict(changed)}
    if experts > 1:
        values["NUM_EXPERTS"] = experts
    else:
        values = {n: v for n, v in values.items() if "GROUP_SIZE" not in n}
    bindings = tuple(settings.Binding(name, value, "made up") for name, value in values.items())
    model = MODELS.get(experts, "configs/models/tiny_switch.gin")
    return settings.load(settings.Request((model,), bindings, model_dir="run")).resolved


def rows(experts, speed, last, every, rate, began, tasks):
    for step in range(every // 5, last + 1, every // 5):
        row = {"step": step, "time": began + step / rate}
        of_experts = {}
        if experts > 1:
            even = 1 / experts
            load = [even * 2] + [even * (experts - 2) / (experts - 1)] * (experts - 1)
            of_experts = {
                "mean_dropped_fraction": 0.1,
                "mean_router_entropy": 0.5 * math.log(experts),
                "load": [load] * LAYERS,
            }
        train = {"loss": loss(step, speed) + 0.1, "steps_per_second": rate}
        yield {**row, "split": "train", **train, **of_experts}
        if step % every == 0:
            yield {**row, "split": "validation", "loss": loss(step, speed), "unigram_entropy": 6.0}
            for task, own in tasks.items():
                yield {**row, "split": f"validation/{task}", "loss": loss(step, own)}
