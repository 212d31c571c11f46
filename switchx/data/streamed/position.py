"""The position of a shard of a training stream: a zip archive of plain files, nothing else.

It holds the settings of the data as JSON and the files of TensorFlow's iterator checkpoint.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from switchx.data.config import DataConfig
from switchx.errors import UserError

PREFIX = "iterator"
_FORMAT = 2
_HEADER = "identity.json"
_CHECKPOINT_FILE = re.compile(r"iterator\.(index|data-\d{5}-of-\d{5})")
_MOST_BYTES = 2**30  # of an archive: iterators keep their shuffle buffers in it
_EPOCH = (1980, 1, 1, 0, 0, 0)


def settings_of(config: DataConfig, vocabulary_digest: str) -> dict[str, Any]:
    """The settings that a position is only valid for, by macro name."""
    return {
        "MIXTURE_OR_TASK_NAME": config.mixture_or_task_name,
        "TASK_FEATURE_LENGTHS": dict(sorted(config.feature_lengths.items())),
        "BATCH_SIZE": config.batch_size,
        "SEED": config.seed,
        "DATA_SHARDS": config.shards,
        "PACK": config.pack,
        "VOCABULARY": vocabulary_digest[:16],
    }


def pack(settings: Mapping[str, Any], counts: list[list[int]], files: Mapping[str, bytes]) -> bytes:
    """Returns one archive of settings, the counts of lines read, and the checkpoint's files."""
    header = {"format": _FORMAT, "identity": settings, "counts": counts}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_HEADER, _EPOCH), json.dumps(header))
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name])
    return buffer.getvalue()


def unpack(state: bytes, settings: Mapping[str, Any]) -> tuple[list[list[int]], dict[str, bytes]]:
    """Returns the counts and the checkpoint's files, by names that lead nowhere else.

    Raises:
      UserError: the bytes are damaged, or of other settings.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(state)) as archive:
            _check_entries(archive.infolist())
            content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        header = json.loads(content.pop(_HEADER))
        saved, counts = dict(header["identity"]), list(header["counts"])
    except UserError:
        raise
    except Exception as error:  # zipfile raises what it likes: EOFError, RuntimeError, ...
        raise damaged(type(error).__name__) from error
    if header.get("format") != _FORMAT:
        raise damaged(f"format {header.get('format')!r}, not {_FORMAT}")
    stray = [name for name in content if not _CHECKPOINT_FILE.fullmatch(name)]
    if stray:
        raise damaged(f"it holds {stray[0]!r}")
    check_settings(saved, settings)
    return counts, content


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
        f"The data position in the checkpoint of MODEL_DIR cannot be read ({why}); "
        "resume from another checkpoint or start a new MODEL_DIR."
    )


def check_settings(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError for the first setting whose value is not the one saved."""
    for setting, value in wanted.items():
        if saved.get(setting) == value:
            continue
        if setting == "VOCABULARY":  # a digest, which says nothing to the user
            raise UserError(
                "VOCABULARY does not match the data position in the checkpoint: set the one it was "
                "saved with, or start a new MODEL_DIR."
            )
        raise UserError(
            f"{setting}={value!r} but the data position in the checkpoint was saved with "
            f"{saved.get(setting)!r}: give that again or start a new MODEL_DIR."
        )
