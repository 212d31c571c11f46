"""What a checkpoint is of, in a small JSON file of its own that vouches for the other files."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.model.shape import StackShape
from switchx.training.teacher import Teacher

FOLDER = "checkpoints"  # in a run's directory, one folder below it for each step
COMMITTED = "commit_success.txt"  # in a step's folder, written last

# The fields that decide which parameters a model has and what they mean.
_SHAPE_FIELDS = (
    "vocab_size",
    "d_model",
    "d_ff",
    "d_kv",
    "num_heads",
    "num_layers",
    "activation",
    "tied_embeddings",
    "relative_buckets",
)
# What decides which parameters there are, or what they mean, and how it is where nothing is said of
# it, as in checkpoints of before it was compared.
UNSAID: dict[str, Any] = {
    "ModelConfig.num_decoder_layers": None,
    "ModelConfig.relative_max_distance": 128,
    "ModelConfig.scale_logits": None,
    "ModelConfig.bias_per_layer": False,
    "SwitchConfig.experts_in": "feed_forward",
    "SwitchConfig.extra_dense": False,
    "SwitchConfig.expert_widths": None,
    "SwitchConfig.encoder_sparse": None,
    "SwitchConfig.decoder_sparse": None,
}
# What gives routers a bias for the choice; either moves the same one.
BIASED, NOT_BIASED = "BALANCE_BIAS or BALANCE_QUANTILE", "0.0"
_SEAL = "seal"
FROZEN = "frozen"  # there where something is
TEACHER = "teacher"  # of a run that had one


def identity(
    config: ModelConfig,
    optimizer: str | None = None,
    vocabulary: str | None = None,
    frozen: Sequence[str] = (),
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """What a checkpoint must match: settings as the user names them, and what they name by hash."""
    model: dict[str, Any] = {f"ModelConfig.{name}": getattr(config, name) for name in _SHAPE_FIELDS}
    if config.switch:
        model["NUM_EXPERTS"] = config.switch.num_experts
        model["SwitchConfig.every"] = config.switch.every
        model |= {BIASED: "above 0"} if config.switch.biased else {}
    for name in UNSAID:
        of = config.switch if name.startswith("SwitchConfig") else config
        if of is not None:
            model[name] = getattr(of, name.partition(".")[2])
    model |= _own_shapes(config)
    own: dict[str, Any] = {"model": model, "optimizer": optimizer, "vocabulary": vocabulary}
    own |= {FROZEN: sorted({*frozen})} if frozen else {}
    return own | ({TEACHER: teacher.record} if teacher else {})


def frozen_in(saved: Mapping[str, Any]) -> tuple[str, ...]:
    """What FREEZE named in the run whose checkpoint has this identity, sorted."""
    return tuple(saved.get(FROZEN, ()))


def teacher_in(saved: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of whom a run with a checkpoint of this identity learns from."""
    return saved.get(TEACHER)


def _own_shapes(config: ModelConfig) -> dict[str, Any]:
    """What is set of a stack or of some experts; None where it says what holds for all of them."""
    encoder, decoder = config.encoder, config.decoder
    own: dict[str, Any] = {"ModelConfig.num_decoder_layers": None}
    if config.scaled_logits == config.tied_embeddings:
        own["ModelConfig.scale_logits"] = None
    if decoder.num_layers != encoder.num_layers:
        own["ModelConfig.num_decoder_layers"] = decoder.num_layers
    if config.switch:
        alike = config.expert_widths == ((config.switch.num_experts, config.d_ff),)
        own["SwitchConfig.expert_widths"] = None if alike else [*map(list, config.expert_widths)]
        for name, shape in (("encoder", encoder), ("decoder", decoder)):
            same = shape == StackShape.of(shape.num_layers, config.switch.every)
            # As JSON gives it back.
            said = shape.sparse if isinstance(shape.sparse, int) else list(shape.sparse)
            own[f"SwitchConfig.{name}_sparse"] = None if same else said
    return own


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a hash of itself: no other checkpoint has the same."""
    return {**content, _SEAL: storage.hash_of(content)}


def unsealed(found: Any) -> tuple[dict[str, Any], str]:
    """The content that was sealed, and its seal.

    Raises:
      ValueError: it is not what was sealed.
    """
    if not isinstance(found, dict) or _SEAL not in found:
        raise ValueError("identity has no seal")
    content = {name: value for name, value in found.items() if name != _SEAL}
    if found[_SEAL] != storage.hash_of(content):
        raise ValueError("identity is not what was saved")
    return content, found[_SEAL]


def checkpoints_of(model_dir: storage.AnyPath) -> Path:
    """The folder of a run's checkpoints, absolute; UserError where none could be read there."""
    folder = storage.as_path(model_dir, "MODEL_DIR") / FOLDER
    folder = folder if storage.is_remote(folder) else folder.resolve()
    _check_name(folder)
    return folder


def _check_name(directory: Path) -> None:
    """Raises UserError for the few names below which arrays cannot be written and read again."""
    name = str(directory)
    is_text = name.encode(errors="replace") == os.fsencode(name)
    # Orbax takes the first part of such a path for a URL's scheme; TensorStore normalizes the rest.
    remote = storage.is_remote(directory)
    a_url = not remote and directory.parts[1] in ("gs", "s3", "az", "hf")
    below = name.split("://", 1)[1] if remote else name
    if a_url or "\\" in below or ":/" in below or ".." in below.split("/") or not is_text:
        raise UserError(
            f"MODEL_DIR={str(directory.parent)!r} has a name that checkpoints cannot lie below: "
            "choose one in UTF-8 without backslashes, '..', folders that end in ':', or a first "
            "folder gs, s3, az or hf."
        )


def saved_steps(model_dir: storage.AnyPath) -> list[int]:
    """Steps of the finished checkpoints in a run's directory, oldest first."""
    folder = checkpoints_of(model_dir)
    names = [name for name in storage.names_in(folder, "MODEL_DIR") if is_step(name)]
    with ThreadPoolExecutor(8) as pool:
        whole = list(pool.map(lambda name: is_whole(folder / name), names))
    return sorted(int(name) for name, there in zip(names, whole, strict=True) if there)


def is_step(name: str) -> bool:
    """Whether a folder of this name is a step's."""
    return name.isascii() and name.isdigit()


def is_whole(folder: Path) -> bool:
    """Whether all of a checkpoint was written.

    On a disk it gets its name when it is, and in an object store, where nothing can be renamed, a
    last file.
    """
    return not storage.is_remote(folder) or COMMITTED in storage.names_in(folder, "MODEL_DIR")


def read_identity(model_dir: storage.AnyPath, step: int) -> tuple[dict[str, Any], str]:
    """The identity of a checkpoint, and its seal.

    Raises:
      ValueError: it is damaged or not there.
    """
    path = checkpoints_of(model_dir) / str(step) / "identity" / "metadata"
    content = storage.read_if_there(path, "MODEL_DIR")
    if content is None:
        raise ValueError("it has no identity")
    try:
        return unsealed(json.loads(content))
    except RecursionError:
        raise ValueError("identity is nested too deeply") from None


def newest_position(model_dir: storage.AnyPath) -> bytes | None:
    """The data's position of a shard in the newest checkpoint, unverified; None without one."""
    for step in saved_steps(model_dir)[-1:]:
        folder = checkpoints_of(model_dir) / str(step) / "position"
        for name in sorted(storage.names_in(folder, "MODEL_DIR")):
            if name.startswith("shard-"):
                content = storage.read_if_there(folder / name, "MODEL_DIR") or b""
                return content.partition(b"\n")[2]  # behind the line with its hash
    return None


def newest_identity(model_dir: storage.AnyPath) -> dict[str, Any] | None:
    """The identity of the newest checkpoint whose identity can be read; None without one."""
    for step in reversed(saved_steps(model_dir)):
        try:
            return read_identity(model_dir, step)[0]
        except ValueError:  # damaged: whoever restores it says so
            continue
    return None
