"""Rows of metrics, a picture, and event files read by TensorFlow."""

import io
import os
from pathlib import Path
from typing import Any

from switchx.writers import RunFacts

LAYERS = ["encoder 1", "decoder 1"]
SETTINGS = {"TRAIN_STEPS": 30, "LEARNING_RATE": 0.5, "OPTIMIZER": "adamw", "PACK": False}
CONFIGURATION = "TRAIN_STEPS = 30\nOPTIMIZER = 'adamw'\n"


def facts(folder: Path) -> RunFacts:
    return RunFacts(str(folder), CONFIGURATION, SETTINGS, LAYERS)


def row(step: int, split: str = "train", loss: float | None = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "split": split,
        "time": 1e9 + step,
        "loss": loss,
        "load": [[0.75, 0.25], [0.5, 0.5]],
        "z_loss": [1.0, 2.0],
    }


# What every writer calls the figures of such a row, its loss aside.
NAMED = {
    "switch/encoder_1/z_loss": 1.0,
    "switch/decoder_1/z_loss": 2.0,
    "switch/encoder_1/max_load": 1.5,
    "switch/encoder_1/min_load": 0.5,
    "switch/decoder_1/max_load": 1.0,
    "switch/decoder_1/min_load": 1.0,
}


def png() -> bytes:
    """A picture of 3 x 2."""
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(content, format="png")
    return content.getvalue()


def events(folder: Path, split: str = "") -> list[Any]:
    """All events of a run's split in the order of writing; TensorFlow checks each checksum."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from tensorflow.compat.v1.train import summary_iterator

    files = (folder / "tensorboard" / split).glob("events.out.tfevents.*")
    ordered = sorted(files, key=lambda path: path.name)
    return [event for path in ordered for event in summary_iterator(str(path))]


def values(folder: Path, split: str = "") -> dict[str, tuple[int, Any]]:
    """The last step and value of each tag."""
    found = events(folder, split)
    return {value.tag: (event.step, value) for event in found for value in event.summary.value}
