"""switchx data vocabulary: trains a SentencePiece vocabulary on a sample of one's own text."""

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchx import storage
from switchx.errors import UserError
from switchx.terminal import Progress

if TYPE_CHECKING:
    from switchx.data.tasks.vocabulary_training import SizeError

_FILE = "sentencepiece.model"
FLAGS: dict[str, dict[str, Any]] = {
    "--input": {
        "action": "append",
        "metavar": "GLOB",
        "help": "files of text; repeat for several",
    },
    "--text_field": {
        "default": "text",
        "metavar": "NAME",
        "help": "of JSON and Parquet (%(default)s)",
    },
    "--size": {
        "type": int,
        "metavar": "N",
        "help": "ids in all, sentinels among them, such as 32100",
    },
    "--output": {"metavar": "PATH", "help": f"a new .model file, or a folder for {_FILE}"},
    "--sentinels": {"type": int, "default": 100, "metavar": "N", "help": "(%(default)s)"},
    "--sample_mb": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "text to learn from (%(default)s)",
    },
}
_MB = 10**6
_MOST_IDS = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this action."""
    group = parser.add_argument_group("vocabulary")
    for flag, how in FLAGS.items():
        group.add_argument(flag, **how)


def run(args: argparse.Namespace) -> None:
    """Writes the model.

    Raises:
      UserError: a flag is wrong, the text cannot be read or does not give so many pieces.
    """
    path = _output(args.output)
    files = _files(args.input or [])
    from switchx.data.tasks import vocabulary_training as training

    pieces = _pieces(args, training.LEAST_SIZE)
    began = time.monotonic()
    with Progress(None, "bytes") as progress:
        sample = training.Sample(files, args.text_field, args.sample_mb * _MB)
        read = list(training.sentences(sample.texts(progress.advance)))
    size = sum(len(sentence.encode()) for sentence in read)
    left_out = f", {sample.broken:,} records without text" if sample.broken else ""
    print(
        f"{size / _MB:,.1f} MB of text (--sample_mb={args.sample_mb}) from {len(sample.files)} of "
        f"{len(files)} files{left_out}; training ...",
        flush=True,
    )
    try:
        model = _watched(lambda: training.train(read, pieces))
    except training.SizeError as error:
        raise _other_size(args, error) from error
    storage.write_whole(path, training.with_sentinels(model, args.sentinels))
    print(
        f"{args.size:,} ids, the last {args.sentinels} of them sentinels, after "
        f"{time.monotonic() - began:.0f} s; train with a ModelConfig.vocab_size of at least "
        f"{args.size} and\n  --gin.VOCABULARY={str(path)!r}"
    )


def _watched(call: Callable[[], bytes]) -> bytes:
    """What a call returns that takes minutes and says nothing; ctrl-C ends the waiting."""
    future: Future[bytes] = Future()

    def answer() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=answer, daemon=True).start()
    with Progress(None, "seconds") as progress:
        while not future.done():
            wait([future], timeout=1.0)
            progress.advance()
    return future.result()


def _output(given: str | None) -> Path:
    if given is None:
        raise UserError("--output is required: name a new file, as words.model, or a folder.")
    path = storage.as_path(given, "--output")
    return storage.check_new(path if given.endswith(".model") else path / _FILE, "--output")


def _files(globs: list[str]) -> list[str]:
    if not globs:
        raise UserError("--input is required: give a glob of files of text, as '/data/*.json.gz'.")
    found: dict[str, int] = {}
    for pattern in globs:
        matched = storage.list_files(pattern, "--input")
        if not matched:
            raise UserError(f"{storage.why_none(pattern, '--input')}.")
        found |= matched
    return list(found)


def _pieces(args: argparse.Namespace, least: int) -> int:
    """Those of the text, which --size leaves beside the sentinels."""
    if args.sentinels < 0:
        raise UserError(f"--sentinels={args.sentinels} is no count: give 0 or more.")
    if args.sample_mb < 1:
        raise UserError(f"--sample_mb={args.sample_mb} is no size: give at least 1.")
    if args.size is None:
        raise UserError("--size is required: give the number of ids, such as 32100.")
    if args.size > _MOST_IDS:
        raise UserError(f"--size={args.size} is too large: give at most {_MOST_IDS}.")
    if args.size <= least + args.sentinels:
        raise UserError(
            f"--size={args.size} is too small for {least} control ids and bytes and "
            f"{args.sentinels} sentinels: give more than {least + args.sentinels}."
        )
    return int(args.size - args.sentinels)


def _other_size(args: argparse.Namespace, error: "SizeError") -> UserError:
    if error.most is not None:
        return UserError(
            f"--size={args.size} is too large for this text: give at most "
            f"{error.most + args.sentinels}, or more text (--input, --sample_mb)."
        )
    return UserError(
        f"--size={args.size} is too small for the characters of this text: give at least "
        f"{(error.least or 0) + args.sentinels}."
    )
