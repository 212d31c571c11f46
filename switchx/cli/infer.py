"""switchx infer: JSON lines with blanks in, the same lines with the blanks filled out."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from switchx.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from switchx.inference import DecodingConfig, Vocabulary

DESCRIPTION = """\
Reads JSON lines, each with a "text" whose blanks are <extra_id_0>, <extra_id_1>, ... or __, and
writes each with what the model makes of it: "output", as it came; "blanks", what it put into
each; "filled", the text without blanks."""

# Which method a flag belongs to: with another it would do nothing, so it is an error.
_ONLY = {
    "temperature": "sample",
    "top_k": "sample",
    "top_p": "sample",
    "seed": "sample",
    "num_beams": "beam",
    "length_penalty": "beam",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx infer`; those all commands share are added by the caller."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("--step", type=int, help="checkpoint to use (default: the newest)")
    add("--input", default="-", metavar="FILE", help="JSON lines (default: -, standard input)")
    add("--output", default="-", metavar="FILE", help="new file (default: -, standard output)")
    add("--method", default="greedy", choices=("greedy", "sample", "beam"), help="(%(default)s)")
    add("--temperature", type=float, help="sample: divides the logits (1.0)")
    add("--top_k", type=int, help="sample: from so many most probable tokens (0: all)")
    add("--top_p", type=float, help="sample: from the fewest tokens of this mass (1.0: all)")
    add("--seed", type=int, help="sample: of the random choices (0)")
    add("--num_beams", type=int, help="beam: hypotheses kept (4)")
    add(
        "--length_penalty",
        type=float,
        help="beam: alpha of logp / ((5 + length) / 6)^alpha (0.6)",
    )
    add("--max_length", type=int, help="most tokens of an answer (the length of 'targets')")
    add("--batch_size", type=int, help="lines at a time (8, or what the mesh needs)")


def run(args: argparse.Namespace) -> None:
    """Answers every line of the input.

    Raises:
      UserError: a flag, the input or the model is not usable; nothing has been written then.
    """
    check_flags(args)
    check_output(args.output)
    rows = list(read_rows(args.input))

    # These take seconds to import; a mistake above is told at once.
    import jax

    from switchx import data, inference
    from switchx.model import Model
    from switchx.settings import loading as gin_config
    from switchx.sharding import make_mesh
    from switchx.training import checkpoints
    from switchx.training.checkpoints.refusals import check_model

    settings = gin_config.load(args)
    mesh = make_mesh(settings.run.mesh)
    decoding = decoding_config(args, settings.data.feature_lengths["targets"], mesh)
    vocabulary = data.vocabulary(settings.data)
    limit = settings.data.feature_lengths["inputs"]
    tokens = [encode(number, row["text"], vocabulary, limit) for number, row in rows]

    model = Model.of(settings.run.model)
    check_model(model.config, settings.model_dir, vocabulary.fingerprint)
    with jax.set_mesh(mesh), writing(args.output) as output:
        params, step = checkpoints.restore_params(model, settings.model_dir, mesh, args.step)
        print(
            f"{len(rows)} lines, checkpoint of step {step}, {decoding.method}, "
            f"{decoding.batch_size} at a time",
            file=sys.stderr,
        )
        answers = inference.predict(model, params, tokens, decoding, limit, vocabulary.eos_id)
        for (_, row), answer in zip(rows, progress(answers, len(rows)), strict=True):
            result = inference.answer(row["text"], answer, vocabulary)
            line = row | {
                "output": result.output,
                "blanks": result.blanks,
                "filled": result.filled,
            }
            print(json.dumps(line, ensure_ascii=False), file=output, flush=True)


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for a flag that the chosen method does not use."""
    for flag, method in _ONLY.items():
        if getattr(args, flag) is not None and args.method != method:
            raise UserError(
                f"--{flag}={getattr(args, flag)} has no effect with --method={args.method}; "
                f"leave it out or give --method={method}."
            )


def decoding_config(args: argparse.Namespace, target_length: int, mesh: "Mesh") -> "DecodingConfig":
    """What the flags say, with the defaults that need the model and the mesh."""
    from switchx.inference import DecodingConfig, Sampling
    from switchx.sharding import batch_shards

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    shards = batch_shards(mesh)
    batch_size = -(-8 // shards) * shards if args.batch_size is None else args.batch_size
    if batch_size % shards:
        raise UserError(
            f"--batch_size={batch_size} must be a multiple of {shards}, the product of "
            f"MESH_REPLICA={mesh.shape['replica']}, MESH_DATA={mesh.shape['data']} and "
            f"MESH_EXPERT={mesh.shape['expert']}."
        )
    return DecodingConfig(
        length=target_length if args.max_length is None else args.max_length,
        method=args.method,
        sampling=Sampling(**given("temperature", "top_k", "top_p")),
        batch_size=batch_size,
        **given("seed", "num_beams", "length_penalty"),
    )


def read_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and object of each line that is not blank.

    Raises:
      UserError: the file cannot be read, has no lines, or has one that is no object with a text.
    """
    empty = True
    with _reading(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                empty = False
                yield number, _parse(line, number)
    if empty:
        raise UserError(f'--input={path} has no lines; give lines such as {{"text": "a __"}}.')


def _parse(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # bytes that are no UTF-8 included
        raise UserError(f"line {number} of --input is not JSON ({error}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UserError(
            f'line {number} of --input is not an object with a string "text", '
            'such as {"text": "Return the __ of the list."}.'
        )
    return row


@contextlib.contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb")  # noqa: SIM115  (closed below; only opening may fail so)
    except OSError as error:
        raise UserError(f"--input={path} cannot be read ({error.strerror}).") from error
    with stream:
        yield stream


def encode(number: int, text: str, vocabulary: "Vocabulary", limit: int) -> list[int]:
    """Encoder tokens of the text of a line, or the UserError that names the line."""
    from switchx.inference import to_tokens

    try:
        tokens = to_tokens(text, vocabulary)
    except UserError as error:
        raise UserError(f"line {number} of --input: {error}") from error
    if len(tokens) > limit:
        raise UserError(
            f"line {number} of --input has {len(tokens)} tokens with the end of sequence; the "
            f"model takes {limit}, the length of 'inputs' in TASK_FEATURE_LENGTHS."
        )
    return tokens


def check_output(path: str) -> None:
    """Raises UserError where `writing` would lose something or fail."""
    if path == "-":
        return
    if os.path.lexists(path):
        raise UserError(f"--output={path} exists; give the name of a new file.")
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--output={path} cannot be written; {folder} must be a writable folder.")


@contextlib.contextmanager
def writing(path: str) -> Iterator[TextIO]:
    """A stream to a file that is there when all of it is, or to standard output."""
    if path == "-":
        yield sys.stdout
        return
    partial = Path(f"{path}.{os.getpid()}.partial")
    try:
        with open(partial, "x", encoding="utf-8") as stream:
            yield stream
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def progress(answers: Iterator[list[int]], total: int) -> Iterator[list[int]]:
    """The answers, with a bar where there is a person to see one."""
    import tqdm

    return iter(tqdm.tqdm(answers, total=total, unit="line", disable=not sys.stderr.isatty()))
