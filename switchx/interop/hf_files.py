"""The files of a transformers folder: config.json, and the tensors wherever its index says."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.files.formats import check_fetched
from switchx.errors import UserError
from switchx.interop.safetensors import Tensor, read_header

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # none that leaves the folder

# With weights_only=True torch makes tensors of a pickle and runs nothing that it names. A copy of
# each, since safetensors refuses tensors that share their memory.
_CONVERT = (
    "import glob, torch; from safetensors.torch import save_file; found = {}; "
    "[found.update(torch.load(name, map_location='cpu', weights_only=True)) "
    "for name in sorted(glob.glob('pytorch_model*.bin'))]; "
    "save_file({name: x.clone(memory_format=torch.contiguous_format) "
    "for name, x in found.items()}, 'model.safetensors', {'format': 'pt'})"
)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's files, by name; what the index names and no file has is not there.

    Raises:
      UserError: there are none, or not in safetensors, or a file is damaged.
    """
    if storage.is_file(folder / WEIGHTS, "--input"):
        return read_header(folder / WEIGHTS)
    if not storage.is_file(folder / WEIGHTS_INDEX, "--input"):
        raise _without_safetensors(folder)
    named = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise UserError(f"{folder / WEIGHTS_INDEX} has no weight_map from tensors to files.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(named.values())):
        tensors |= _of_shard(folder, name, named)
    return tensors


def _of_shard(folder: Path, name: str, named: Mapping[str, str]) -> dict[str, Tensor]:
    if not _FILE_NAME.fullmatch(name):
        raise UserError(f"{folder / WEIGHTS_INDEX}: {name[:200]!r} is not a name of a file.")
    found = read_header(folder / name)
    for tensor in found:
        if named.get(tensor) != name:
            raise UserError(f"{folder / name} has {tensor[:200]!r}, not named in {WEIGHTS_INDEX}.")
    return found


def _without_safetensors(folder: Path) -> UserError:
    for name in PICKLES:
        if storage.is_file(folder / name, "--input"):
            here = "here" if not storage.is_remote(folder) else "on a disk that has a copy of it"
            where = shlex.quote(str(folder)) if not storage.is_remote(folder) else "FOLDER"
            return UserError(
                f"{folder} holds {name} and no {WEIGHTS}: that is a pickle, which may run code "
                f"when it is read, so switchx does not read it. Make {WEIGHTS} of it, {here}, with "
                f'torch: cd {where} && python -c "{_CONVERT}"'
            )
    return UserError(
        f"{folder} holds neither {WEIGHTS} nor {WEIGHTS_INDEX}: name a folder that transformers' "
        "save_pretrained wrote."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UserError: it is not there, or is no such file.
    """
    content = storage.read_if_there(path, "--input")
    if content is None:
        raise UserError(
            f"--input leads to {str(path)!r}, which is not there: name a folder that transformers' "
            "save_pretrained wrote."
        )
    check_fetched(content, path, "--input")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error)[:200]}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object.")
    return value
