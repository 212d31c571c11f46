"""switchx export: a trained model, written for another program."""

import argparse
import re

from switchx import storage
from switchx.cli.flags import load_run
from switchx.cli.new_run import check_new_folder
from switchx.errors import UserError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}

EPILOG = """\
Writes model.safetensors, in several files where it is large, and config.json, which
transformers' from_pretrained loads, and spiece.model where the vocabulary has T5's ids."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx export`; those all commands share are added by the caller."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--to", required=True, choices=("hf",), help="the program: transformers")
    add("--output", required=True, metavar="DIR", help="folder to write, which must not exist")
    add("--step", type=int, help="checkpoint to use (default: the newest)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="(%(default)s)")
    add("--max_shard_size", default="5GB", metavar="SIZE", help="of one file (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Writes the folder, or nothing.

    Raises:
      UserError: a flag is wrong, there is no such checkpoint, or transformers has no such model.
      RunError: the checkpoint is damaged.
    """
    most = num_bytes(args.max_shard_size)
    check_new_folder(args.output, "--output")
    import jax

    from switchx import data
    from switchx.interop import hf_config, hf_export, hf_tokenizer
    from switchx.interop.saved_params import SavedParams
    from switchx.interop.source import SpecialIds
    from switchx.training import checkpoints

    settings = load_run(args, reads_data=False)
    model, longest = settings.run.model, max(settings.data.feature_lengths.values())
    hf_config.check_exportable(model)
    ids = data.known_ids(settings.data, fetched=True) or data.asked_ids(settings.data)
    special = SpecialIds(0, 1)
    if ids is None:
        print(
            "padding 0 and end of sequence 1 are taken for granted: the task cannot be asked here"
        )
    else:
        special = SpecialIds(ids.file_pad, ids.exchanged(ids.eos))
    jax.config.update("jax_platforms", "cpu")  # the accelerators may be busy with this very run
    folder, arrays, step = checkpoints.saved_params(model, settings.model_dir, args.step)
    saved = SavedParams(folder, arrays)
    with storage.new_directory(args.output, "--output", "config.json") as output:
        pieces = data.vocabulary_model(settings.data)
        written = False
        if ids is not None and pieces is not None:
            written = hf_tokenizer.write_vocabulary(output, pieces, ids)
        names = hf_export.export(model, saved, longest, output, most, args.dtype, special)
    files = names[0] if len(names) == 1 else f"{len(names)} files"
    print(f"checkpoint of step {step:,}: {files} and config.json in {args.output}")
    print(_of_vocabulary(written, settings.data.vocabulary))
    if model.switch:
        print(
            f"expert_capacity is {longest}, the longest row: transformers counts slots per row, "
            "without groups or capacity factors."
        )


def _of_vocabulary(written: bool, name: str) -> str:
    if written:
        return "the vocabulary is in spiece.model, for transformers' T5Tokenizer"
    return f"VOCABULARY={name!r} is not written: it is no file that T5Tokenizer reads as it is"


def num_bytes(size: str) -> int:
    """Bytes of "5GB", "300MB", "70KB" or a plain number.

    Raises:
      UserError: it is none of these, or 0.
    """
    found = re.fullmatch(r"(\d{1,15})(|KB|MB|GB)", size)
    if not found or not int(found[1]):
        raise UserError(f"--max_shard_size={size} must be a size such as 5GB, 300MB or 70KB.")
    return int(found[1]) * _UNITS[found[2]]
