"""The position of a shard of a training stream: a zip archive of plain files, nothing else.

It holds the settings of the data as JSON, the files of TensorFlow's iterator checkpoint, and the
rows that the iterator has given and no batch has had. Nothing in it depends on the batch's size.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from switchx.data.batches import Batch
from switchx.data.config import DataConfig
from switchx.data.tasks import names, task_files, text_files
from switchx.errors import UserError

PREFIX = "iterator"
_FORMAT = 3
_HEADER = "identity.json"
_CHECKPOINT_FILE = re.compile(r"iterator\.(index|data-\d{5}-of-\d{5})")
_ROWS_FILE = re.compile(r"rows\.([a-z_]+)\.npy")
_MOST_BYTES = 2**30  # of an archive: iterators keep their shuffle buffers in it
_ANEW = "start the data anew with --gin.RESET_DATA=True, or choose another MODEL_DIR"
# In positions of earlier versions; of other settings None.
_WHERE_NOT_SAVED = {"MIXTURE_TEMPERATURE": 1.0, "TEXT_FIELD": "text", "MODE_TOKENS": False}
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Position(NamedTuple):
    """Where a shard stands.

    Attributes:
      block: rows that its pipeline gives at a time, which its files depend on.
      counts: lines read, broken and used, of each source.
      files: of the iterator's checkpoint, by name.
      left: the rows of the last block that were not used; {} for none.
    """

    block: int
    counts: list[list[int]]
    files: Mapping[str, bytes]
    left: Batch


def settings_of(config: DataConfig, vocabulary_digest: str) -> dict[str, Any]:
    """The settings that a position is only valid for, by macro name.

    Not BATCH_SIZE. Where a digest of what is behind a setting decides, it stands behind its value.
    """
    vocabulary = [config.vocabulary, vocabulary_digest[:16]]
    return {**source_settings(config), "VOCABULARY": vocabulary}


def source_settings(config: DataConfig) -> dict[str, Any]:
    """Those of `settings_of` that are known without the vocabulary."""
    return {
        "MIXTURE_OR_TASK_NAME": config.mixture_or_task_name,
        **mixture_settings(config),
        "PREPARED_DIR": None,
        **_text_files(config),
        "TEXT_FIELD": config.text_field if names.TEXT_TASKS.keys() & config.names else "text",
        "TASK_FEATURE_LENGTHS": dict(sorted(config.feature_lengths.items())),
        "PACK": config.pack,
        "MODE_TOKENS": config.mode_tokens,
        "DATA_SHARDS": config.shards,
        "SEED": config.seed,
        **task_files.identity(config),
    }


def mixture_settings(config: DataConfig) -> dict[str, Any]:
    """Those of a mixture, which decide the order of streamed and of prepared data."""
    return {
        "MIXTURE_TASKS": config.mixture_rates or None,
        "MIXTURE_TEMPERATURE": config.mixture_temperature,
        "MIXTURE_MAXIMUM": config.mixture_maximum,
        "MIXTURE_STARTS": dict(config.mixture_starts) if config.mixture_starts else None,
    }


def _text_files(config: DataConfig) -> dict[str, list[str] | None]:
    """The globs with a digest of the files' names and bytes, wherever they lie.

    None where other files are read, and for all of mC4, whose listing takes its time.
    """
    of_c4 = [
        name for name in config.names if name in names.TEXT_TASKS and name not in names.OWN_TEXT
    ]
    own = [names.TEXT] if "train" in (config.text_files or {}) else []
    if names.MC4_JSON_MIXTURE in of_c4 or config.json_train_glob is None:
        of_c4 = []
    return {"C4_JSON_TRAIN": _digest(config, of_c4), "TEXT_FILES": _digest(config, own)}


def _digest(config: DataConfig, tasks: Sequence[str]) -> list[str] | None:
    files = []
    for name in tasks:
        found = text_files.check_there(text_files.check(config, name, "train"))
        files += sorted((path.rsplit("/", 1)[-1], size) for path, size in found.items())
    if not tasks:
        return None
    glob = str(text_files.given(config, tasks[0])["train"].glob)
    return [glob, hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]]


def pack(settings: Mapping[str, Any], at: Position) -> bytes:
    """Returns one archive of settings and a position."""
    header = {"format": _FORMAT, "identity": settings, "block": at.block, "counts": at.counts}
    entries = {_HEADER: json.dumps(header).encode(), **dict(sorted(at.files.items()))}
    for name, x_BL in sorted(at.left.items()):
        rows = io.BytesIO()
        np.save(rows, x_BL, allow_pickle=False)
        entries[f"rows.{name}.npy"] = rows.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def unpack(state: bytes, settings: Mapping[str, Any]) -> Position:
    """Returns the position in an archive; its files' names lead nowhere else.

    Raises:
      UserError: the bytes are damaged, or of other settings.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(state)) as archive:
            _check_entries(archive.infolist())
            content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        header = json.loads(content.pop(_HEADER))
        saved, counts, block = dict(header["identity"]), list(header["counts"]), header.get("block")
        left = {match[1]: _rows(content.pop(name)) for name, match in _rows_files(content)}
    except UserError:
        raise
    except Exception as error:  # zipfile raises what it likes: EOFError, RuntimeError, ...
        raise damaged(type(error).__name__) from error
    if header.get("format") != _FORMAT:
        raise damaged(f"format {header.get('format')!r}, not {_FORMAT}")
    stray = [name for name in content if not _CHECKPOINT_FILE.fullmatch(name)]
    if stray:
        raise damaged(f"it holds {stray[0]!r}")
    if not isinstance(block, int) or block < 1 or len({len(x) for x in left.values()}) > 1:
        raise damaged("its rows make no block")
    check_settings(saved, settings)
    return Position(block, counts, content, left)


def _rows_files(content: Mapping[str, bytes]) -> list[tuple[str, re.Match[str]]]:
    found = [(name, _ROWS_FILE.fullmatch(name)) for name in content]
    return [(name, match) for name, match in found if match]


def _rows(content: bytes) -> np.ndarray:
    x_BL: np.ndarray = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if x_BL.ndim != 2:
        raise ValueError(x_BL.shape)
    return x_BL


def saved_settings(state: bytes) -> dict[str, Any] | None:
    """The settings in a position of streamed or of prepared data; None where it is damaged."""
    try:
        if state.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(state)) as archive:
                _check_entries(archive.infolist())
                state = archive.read(_HEADER)
        return dict(json.loads(state)["identity"])
    except Exception:  # zipfile raises what it likes
        return None


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Refuses what `pack` never writes, before anything is unpacked."""
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise damaged("it holds a name twice")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise damaged("it is compressed")
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise damaged(f"it holds more than {_MOST_BYTES:,} bytes")


def damaged(why: str) -> UserError:
    """The error for a position that cannot be used."""
    return UserError(
        f"The data position in the checkpoint of MODEL_DIR cannot be read ({why}): remove that "
        f"checkpoint to resume from the one before, or {_ANEW}."
    )


def check_settings(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError for the first setting whose value is not the one saved."""
    for setting, value, there, although in differences(saved, wanted):
        # With another vocabulary the parameters mean something else too.
        anew = "choose another MODEL_DIR" if setting == "VOCABULARY" else _ANEW
        raise UserError(
            f"{setting}={value!r}, but the data of the checkpoint in MODEL_DIR was read "
            f"with {there!r}{although}: set that, or {anew}."
        )


def differences(
    saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any, str]]:
    """Yields each setting that was saved with another value than is wanted, as it is shown.

    That is its name, the wanted value, the saved one, and what to add where they look the same.
    """
    for setting, value in wanted.items():
        there = saved.get(setting, _WHERE_NOT_SAVED.get(setting))
        if _deciding(there) != _deciding(value):
            yield setting, _shown(value), _shown(there), _although_equal(value, there)


def _deciding(value: Any) -> Any:
    return value[1] if _has_digest(value) else value


def _shown(value: Any) -> Any:
    return value[0] if _has_digest(value) else value


def _has_digest(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _although_equal(value: Any, there: Any) -> str:
    return ", which held something else" if _shown(value) == _shown(there) else ""
