"""TensorBoard: a folder of event files for each split, and one for what is of the whole run."""

import contextlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from switchx import storage
from switchx.errors import RunError
from switchx.writers.event_file import EventFile, messages
from switchx.writers.figures import loads, scalars
from switchx.writers.writer import Row, RunFacts

FOLDER = "tensorboard"
_BINS = 32
_FULL = 2**20  # bytes of a file after which another is begun: object stores take files whole
_MAIN = ("validation", "loss")  # the figure by which its table of runs compares them


class TensorBoard:
    """Writes event files to `model_dir`/tensorboard."""

    def __init__(self) -> None:
        self._files: dict[str, EventFile] = {}
        self._run, self._step = RunFacts(), 0

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        self._close_files()
        self._run, self._step = run, step
        configuration = _text("configuration", _code(run.configuration))
        self._file("").add(step, [*_hparams(run.hyperparameters), configuration])

    def write(self, row: Row) -> None:
        names = self._run.layer_names
        values: list[Any] = [
            {"tag": tag, "simple_value": value} for tag, value in scalars(row, names).items()
        ]
        values += [
            {"tag": tag, "histo": _histogram(shares)} for tag, shares in loads(row, names).items()
        ]
        self._file(row["split"]).add(row["step"], values)

    def text(self, step: int, name: str, text: str) -> None:
        self._file("").add(step, [_text(name, _code(text))])

    def picture(self, step: int, name: str, png: bytes) -> None:
        width, height = struct.unpack(">II", png[16:24])
        image = {"width": width, "height": height, "colorspace": 4, "encoded_image_string": png}
        self._file("").add(step, [{"tag": name, "image": image}])

    def close(self, status: str) -> None:
        if "" in self._files:
            self._file("").add(self._step, [_hparams_end(status)])
        self._close_files()

    def sync(self) -> None:
        """What was written survives a kill."""
        for file in self._files.values():
            file.sync()

    def _close_files(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(RunError):  # what cannot be written was said before
                file.close()
        self._files.clear()

    def _file(self, split: str) -> EventFile:
        earlier = self._files.get(split)
        if earlier is None or earlier.size > _FULL:
            directory = storage.as_path(self._run.model_dir) / FOLDER / split
            first = self._step + 1 if self._step else 0
            self._files[split] = EventFile(directory, None if earlier else first)
            if earlier:
                earlier.close()
        return self._files[split]


def _histogram(values: Sequence[float]) -> dict[str, Any]:
    """The message's fields: counts of equal bins; a bin's limit is its right end."""
    counts, edges = np.histogram(values, bins=_BINS)
    return {
        "min": min(values),
        "max": max(values),
        "num": len(values),
        "sum": sum(values),
        "sum_squares": sum(value * value for value in values),
        # One without counts says where the first begins.
        "bucket_limit": edges.tolist(),
        "bucket": [0.0, *counts.tolist()],
    }


def _code(text: str) -> str:
    """In Markdown, which TensorBoard takes a text for, as it stands."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _text(name: str, text: str) -> dict[str, Any]:
    tensor = {
        "dtype": "DT_STRING",
        "string_val": [text.encode()],
        "tensor_shape": {"dim": [{"size": 1}]},
    }
    metadata = {"plugin_data": {"plugin_name": "text"}}
    return {"tag": f"{name}/text_summary", "tensor": tensor, "metadata": metadata}


def _hparams(settings: Mapping[str, bool | int | float | str]) -> list[Any]:
    """What its table of runs is made of: the settings, their types, the figure to compare."""
    api, kinds = messages().api, {bool: "BOOL", str: "STRING"}
    group, tag = _MAIN
    experiment = api.Experiment(
        hparam_infos=[
            api.HParamInfo(name=name, type=f"DATA_TYPE_{kinds.get(type(value), 'FLOAT64')}")
            for name, value in settings.items()
        ],
        metric_infos=[
            api.MetricInfo(
                name=api.MetricName(group=group, tag=tag),
                display_name=f"{group} {tag}",
                dataset_type="DATASET_VALIDATION",
            )
        ],
    )
    start = messages().HParams()
    start.session_start_info.SetInParent()
    for name, value in settings.items():
        field = start.session_start_info.hparams[name]
        if isinstance(value, bool):
            field.bool_value = value
        elif isinstance(value, str):
            field.string_value = value
        else:
            field.number_value = value
    return [
        _plugin("_hparams_/experiment", messages().HParams(experiment=experiment)),
        _plugin("_hparams_/session_start_info", start),
    ]


def _hparams_end(status: str) -> Any:
    end = messages().HParams()
    end.session_end_info.status = messages().api.Status.Value(
        "STATUS_FAILURE" if status == "failed" else "STATUS_SUCCESS"
    )
    return _plugin("_hparams_/session_end_info", end)


def _plugin(tag: str, content: Any) -> dict[str, Any]:
    data = {"plugin_name": "hparams", "content": content.SerializeToString()}
    return {"tag": tag, "metadata": {"plugin_data": data}}
