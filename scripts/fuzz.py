"""Feeds damaged input to every parser of switchx that reads what strangers may have written.

    python scripts/fuzz.py --seconds=60              # each parser for so long
    python scripts/fuzz.py --seconds=5 records gin   # these alone

Each begins with valid input and changes it: bits, bytes, numbers, pieces left out, doubled or put
elsewhere. What may come of it is a value or the error that the parser promises; anything else (an
exception of another type, more than a second of computing, more than 512 MB) is a finding, printed
with the input that shows it. Exit status 1 if there is any. A --seed gives the same inputs again.
"""

import argparse
import dataclasses
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from switchx.errors import RunError, UserError

MOST_SECONDS, MOST_BYTES = 1.0, 512 << 20
_INTERESTING = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
]
_WORDS = [b"null", b"-1", b"1e999", b"NaN", b"[" * 2000, b'{"a":' * 500, b"../../etc/passwd", b"\0"]
_WORDS += [b"9" * 400, b"\xff\xfe", b"true", b'""', b"[]", b"{}", b"\\ud800", b"\n", b"'", b"%"]


@dataclasses.dataclass(frozen=True)
class Parser:
    """Something that reads bytes.

    Attributes:
      valid: inputs that it accepts, to begin with.
      parse: takes an input; may raise one of `refusals`.
    """

    valid: list[bytes]
    parse: Callable[[bytes], Any]
    refusals: tuple[type[Exception], ...] = (UserError, RunError)


@dataclasses.dataclass
class Result:
    """What came of a parser's inputs; a finding is a sentence and the input."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    findings: dict[str, bytes] = dataclasses.field(default_factory=dict)


def fuzz(parser: Parser, seconds: float, seed: int, most: int | None = None) -> Result:
    """Tries inputs for some seconds, or `most` of them."""
    result, rng = Result(), random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end and (most is None or result.inputs < most):
        _try(parser, _mutated(rng.choice(parser.valid), rng), result)
    return result


def _try(parser: Parser, content: bytes, result: Result) -> None:
    result.inputs += 1
    before, began = _peak(), time.process_time()
    try:
        parser.parse(content)
        result.accepted += 1
    except parser.refusals:
        pass
    except Exception as error:
        result.findings.setdefault(f"{type(error).__name__} {_place(error)}", content)
    took = time.process_time() - began  # other programs' load says nothing of a parser
    result.slowest = max(result.slowest, took)
    if took > MOST_SECONDS:
        result.findings.setdefault(f"took {MOST_SECONDS} s or more", content)
    if _peak() - before > MOST_BYTES:
        result.findings.setdefault(f"took {MOST_BYTES >> 20} MB or more", content)


def _place(error: Exception) -> str:
    """Where in our own code an error comes through, innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/switchx/" in frame.filename] or frames
    return f"in {Path(ours[-1].filename).name}:{ours[-1].lineno} ({ours[-1].line})"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        rng.choice(_MUTATIONS)(changed, rng)
    return bytes(changed)


def _flip(x: bytearray, rng: random.Random) -> None:
    if x:
        x[rng.randrange(len(x))] ^= 1 << rng.randrange(8)


def _cut(x: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(x) + 1)
    del x[start : start + rng.choice([1, 4, 16, len(x)])]


def _double(x: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(x) + 1)
    x[start:start] = x[start : start + rng.choice([1, 8, 64])] * rng.choice([1, 3])


def _number(x: bytearray, rng: random.Random) -> None:
    size = rng.choice([1, 2, 4, 8])
    value = rng.choice(_INTERESTING) & ((1 << 8 * size) - 1)
    start = rng.randrange(len(x) + 1)
    x[start : start + size] = value.to_bytes(size, rng.choice(["little", "big"]))


def _word(x: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(x) + 1)
    x[start : start + rng.choice([0, 1, 4])] = rng.choice(_WORDS)


def _digit(x: bytearray, rng: random.Random) -> None:
    digits = [i for i, byte in enumerate(x) if 48 <= byte < 58]
    if digits:
        x[rng.choice(digits)] = rng.choice(b"0123456789-.e")


_MUTATIONS = [_flip, _flip, _cut, _double, _number, _word, _digit]


def parsers(folder: Path) -> dict[str, Parser]:
    """All parsers, working in a folder of theirs."""
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()  # quietly, before anything else imports it
    return dict(_data(folder)) | dict(_interop(folder)) | dict(_other(folder))


def _write_shard(path: Path, contents: list[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for content in contents:
        writer.write(content)
    writer.close()


def _data(folder: Path) -> Iterator[tuple[str, Parser]]:
    import gzip
    import zlib

    import numpy as np

    from switchx import storage
    from switchx.data.config import DataConfig
    from switchx.data.embedded import order
    from switchx.data.embedded import stream as embedded
    from switchx.data.prepared import record_index, records, set_plan, sets
    from switchx.data.prepared import stream as prepared_stream
    from switchx.data.streamed import position
    from switchx.data.tasks import objectives, sentence_pieces
    from switchx.data.tasks.texts import LineCounter, blocks_of
    from switchx.data.taught import logit_set
    from switchx.data.taught import records as logits

    arrays = [np.arange(50), np.arange(7)]
    whole = records.encode(arrays, "<u2", 0)
    yield "records", Parser([whole], lambda x: records.decode(x, "<u2", 0))

    def resealed(content: bytes) -> Any:
        """With a checksum that is right, as a stranger would make it."""
        return records.decode(zlib.crc32(content[4:]).to_bytes(4, "little") + content[4:], "<u2", 0)

    yield "records, resealed", Parser([whole], resealed)

    shard = folder / "shard"
    _write_shard(shard, [bytes([n]) * (n * 9) for n in range(40)])

    def index(content: bytes) -> Any:
        """Of the file's end; a file of another size is refused before."""
        return record_index.begins_of(content, 2 * 2**16, 40)

    yield "shard's end", Parser([shard.read_bytes()], index)
    yield "shard's record", Parser([shard.read_bytes()], lambda x: record_index.record_of(x, 0))

    plan = set_plan.SetPlan(
        "task", {"inputs": 64, "targets": 18}, "ab", 300, 1, 70, 0.15, 3.0, [True, True], False,
        {"train": 2},
    )  # fmt: skip
    facts = set_plan.ShardFacts(5, 9, 100, 200, 3, 4096, "cd", 7)
    text = set_plan.SetInfo(plan, {"train": [facts, facts]}).text().encode()
    yield "set.json", Parser([text], lambda x: set_plan.parse_info(x, "set.json"))

    def resealed_plan(content: bytes) -> Any:
        try:
            read = json.loads(content)
            read.pop("checksum")
            read["checksum"] = storage.hash_of(read)
            content = json.dumps(read).encode()
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            pass
        return set_plan.parse_info(content, "set.json")

    yield "set.json, resealed", Parser([text], resealed_plan)

    taught = logits.encode(logits.Taught(1, np.ones((4, 3)), np.ones((4, 4))), 3, 300, 0)

    def resealed_logits(content: bytes) -> Any:
        sealed = zlib.crc32(content[4:]).to_bytes(4, "little") + content[4:]
        return logits.decode(sealed, 3, 300, 0)

    yield "logits, resealed", Parser([taught], resealed_logits)
    teacher = {"path": "runs/a", "step": 1, "seal": "ab"}
    of = logit_set.LogitPlan({"SEED": 0, "TEACHER": ["a", "ab"]}, teacher, None, 3, 300, 8)
    written = [logit_set.LogitFacts(8, 40, 999, "ab"), logit_set.LogitFacts(4, 20, 99, "ab")]
    text = logit_set.LogitSet(of, written).text().encode()

    def resealed_set(content: bytes) -> Any:
        try:
            read = json.loads(content)
            read.pop("checksum")
            content = json.dumps({**read, "checksum": storage.hash_of(read)}).encode()
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            pass
        return logit_set.parse_set(content, "logits.json")

    yield "logits.json, resealed", Parser([text], resealed_set)

    def mixture(content: bytes) -> Any:
        (folder / "mix").mkdir(exist_ok=True)
        (folder / "mix" / "mixture.json").write_bytes(content)
        config = DataConfig("mix", {"inputs": 64, "targets": 18}, 4, prepared_dir=str(folder))
        return sets.rates(config)

    yield "mixture.json", Parser([b'{"rates": {"a": 1.0, "b": 0.25}}'], mixture)

    identity = {"BATCH_SIZE": 4, "SEED": 0}
    rows = {"decoder_target_tokens": np.ones((2, 3), np.int32)}
    files = {"iterator.index": b"x" * 200}
    packed = position.pack(identity, position.Position(4, [[1, 2, 3]], files, rows))
    yield "position", Parser([packed], lambda x: position.unpack(x, identity))
    prepared = json.dumps(
        {"format": "prepared 2", "identity": identity, "example": 7, "batch_size": 4}
    ).encode()
    yield (
        "prepared position",
        Parser([prepared], lambda x: prepared_stream.place_of(x, identity)),
    )

    embedded_position = embedded.position_of(order.Shuffled(0, objectives.SHUFFLED_ROWS), identity)
    yield (
        "embedded position",
        Parser([embedded_position], lambda x: embedded.place_of(x, identity, 0)),
    )

    def json_lines(name: str) -> Callable[[bytes], Any]:
        def parse(content: bytes) -> Any:
            (folder / name).write_bytes(content)
            counter = LineCounter(1.0)
            return [counter.parse(block) for block in blocks_of(str(folder / name), "TEXT_FILES")]

        return parse

    some = b"".join(
        json.dumps({"text": "a text " * n, "url": "x"}).encode() + b"\n" for n in range(9)
    )
    yield "JSON lines", Parser([some], json_lines("lines.json"))
    yield "JSON lines, gzip", Parser([gzip.compress(some)], json_lines("lines.json.gz"))

    yield from _tables(folder)

    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    for piece, kind in (("<pad>", 3), ("</s>", 3), ("<unk>", 2), ("▁a", 1), ("b", 1)):
        proto.pieces.add(piece=piece, score=-1.0, type=kind)
    proto.trainer_spec.pad_id, proto.trainer_spec.eos_id, proto.trainer_spec.unk_id = 0, 1, 2

    def vocabulary(content: bytes) -> Any:
        return sentence_pieces.SentencePieces(content, name="x").encode_blanks("a b <extra_id_0>")

    yield "vocabulary", Parser([proto.SerializeToString()], vocabulary)


def _tables(folder: Path) -> Iterator[tuple[str, Parser]]:
    """Files of labelled examples."""
    import pyarrow
    import pyarrow.parquet

    from switchx.data.tasks import table_files
    from switchx.data.tasks.table_fields import Field, Places

    fields = {"answers/text": Field("text", many=True), "label": Field("label", labels=("a", "b"))}
    places = Places(fields, {"label": "of.label"}, {}, "TASK_FILES")

    def parse(content: bytes) -> Any:
        (folder / "table").write_bytes(content)
        rows = table_files.rows(str(folder / "table"), "TASK_FILES", places.columns)
        return [places.values(row) for row in rows]

    some = [{"answers": {"text": ["x", "y" * n]}, "of": {"label": n % 2}} for n in range(9)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), folder / "table.parquet")
    yield "table, Parquet", Parser([(folder / "table.parquet").read_bytes()], parse)
    yield "table, JSON", Parser(["\n".join(map(json.dumps, some)).encode()], parse)


_LAUNCHERS = [
    b"SLURM_JOB_ID=7\nSLURM_NTASKS=4\nSLURM_PROCID=2\nSLURM_LOCALID=0\nSLURM_STEP_NODELIST=n[1-4]",
    b"OMPI_COMM_WORLD_SIZE=8\nOMPI_COMM_WORLD_RANK=5\nOMPI_MCA_orte_hnp_uri=1.0;tcp://10.0.0.1:3",
]
_SETTINGS_THAT_MEET = [
    b"VOCABULARY=bytes\nModelConfig.vocab_size=384\nTASK_FEATURE_LENGTHS={'inputs': 64, "
    b"'targets': 16}\nBATCH_SIZE=8\nMODEL_DIR=a",
    b"VOCABULARY=t5\nModelConfig.vocab_size=32128\nMIXTURE_OR_TASK_NAME=c4_json_span_corruption",
]


def _find_job(content: bytes) -> Any:
    """In the environment that the lines make."""
    from unittest import mock

    from switchx.hosts.job import find_job

    lines = content.replace(b"\0", b"").split(b"\n")
    pairs = [line.partition(b"=") for line in lines]
    names = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
    with mock.patch.dict(os.environ, names):
        return find_job(None, None, None, 0.1)


def _fits(content: bytes) -> Any:
    """The settings that the lines make, compared with each other."""
    from switchx.settings import Request, check_fits, load, read_flag

    flags = content.decode(errors="replace").split("\n")
    check_fits(load(Request(bindings=tuple(read_flag(flag) for flag in flags if flag))))


def _interop(folder: Path) -> Iterator[tuple[str, Parser]]:
    import msgpack
    import numpy as np

    from switchx.interop import hf_config, hf_files, hf_tokenizer, safetensors, t5x_index

    path = folder / "model.safetensors"
    entries = [safetensors.Entry(n, np.dtype("float32"), (2, 3)) for n in ("a", "b")]
    safetensors.write_file(path, entries, [np.ones((2, 3), np.float32)] * 2)
    valid = path.read_bytes()

    def tensors(content: bytes) -> Any:
        path.write_bytes(content)
        return [tensor.read() for tensor in safetensors.read_header(path).values()]

    yield "safetensors", Parser([valid], tensors)

    config = {"model_type": "t5", "vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 32}
    config |= {"num_layers": 2, "num_heads": 4, "feed_forward_proj": "relu"}
    switch = config | {"model_type": "switch_transformers", "num_experts": 4}
    switch |= {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}

    def read_config(content: bytes) -> Any:
        (folder / "config.json").write_bytes(content)
        return hf_config.read_config(
            hf_files.read_json(folder / "config.json"), "config.json", False
        )

    texts = [json.dumps(c).encode() for c in (config, switch)]
    yield "config.json", Parser(texts, read_config)

    special = [{"id": 0, "content": "<pad>", "special": True}, {"id": 5, "content": "<extra_id_0>"}]
    vocab = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581", -2.0], ["a", -3.0]]
    unigram = {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False}
    table = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    tokenizer = {"added_tokens": special, "model": unigram, "normalizer": table}

    def read_tokenizer(content: bytes) -> Any:
        (folder / hf_tokenizer.TOKENIZER).write_bytes(content)
        return hf_tokenizer.read_vocabulary(folder)

    yield "tokenizer.json", Parser([json.dumps(tokenizer).encode()], read_tokenizer)

    inline = msgpack.packb([[2], "float32", np.zeros(2, np.float32).tobytes()])
    stored = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": "target.a"},
        "metadata": {"shape": [2, 3], "dtype": "<f4"},
    }
    tree = {"optimizer": {"target": {"a": stored, "b": msgpack.ExtType(1, inline)}}}
    (folder / "target.a").mkdir()

    def index(content: bytes) -> Any:
        (folder / t5x_index.INDEX).write_bytes(content)
        return t5x_index.read_index(folder)

    yield "T5X index", Parser([msgpack.packb(tree)], index)


_THEIRS = b"""
from __gin__ import dynamic_registration
import __main__ as train_script
from t5x import partitioning
from t5x import utils
MIXTURE_OR_TASK_NAME = 'a_task'
TASK_FEATURE_LENGTHS = {'inputs': 512, 'targets': 114}
TRAIN_STEPS = 1_010_000
INITIAL_CHECKPOINT_PATH = '/a/checkpoint_1000000'
START_FROM = '/a/run'
LOSS_NORMALIZING_FACTOR = 'NUM_REAL_TARGET_TOKENS'
train_script.train:
  eval_period = 50
  random_seed = 7
train/utils.DatasetConfig.seed = 7
utils.SaveCheckpointConfig.checkpoint_steps = (5, 10)
utils.create_learning_rate_scheduler.factors = 'constant * rsqrt_normalized_decay'
partitioning.PjitPartitioner.model_parallel_submesh = (2, 1, 1, 2)
"""


def _converted(folder: Path, content: bytes) -> Any:
    from switchx.settings import Request, converted

    (folder / "their.gin").write_bytes(content)
    return converted(Request((str(folder / "their.gin"),)))


def _other(folder: Path) -> Iterator[tuple[str, Parser]]:
    import socket

    from switchx import storage
    from switchx.hosts.connection import Connection
    from switchx.planning import topology
    from switchx.settings import gin_files, read_flag
    from switchx.training.resets import Resets
    from switchx.training.run_reader import metric_rows

    repository = Path(__file__).parents[1] / "configs"
    configs = [repository / "base.gin", repository / "runs" / "quickstart.gin"]

    def gin(content: bytes) -> Any:
        (folder / "a.gin").write_bytes(content)
        return gin_files.Reader([]).read_file(str(folder / "a.gin"))

    yield "gin", Parser([path.read_bytes() for path in configs], gin)
    dense = b"include 't5x/examples/t5/t5_1_1/small.gin'\ninclude 't5x/configs/runs/finetune.gin'"
    switch = (
        b"include 'flaxformer/t5x/configs/moe/models/switch_base.gin'\n"
        b"include 't5x/contrib/moe/configs/runs/finetune.gin'"
    )
    theirs = [dense + _THEIRS, switch + _THEIRS]
    yield "gin of T5X", Parser(theirs, lambda content: _converted(folder, content))
    flags = [b"BATCH_SIZE=64", b"ModelConfig.d_ff={'x': [1, 2.5]}", b"P='/a/b'", b"M=%N"]
    yield "gin flag", Parser(flags, lambda x: read_flag(x.decode(errors="replace")))
    names = [b"v5p-512", b"2xv5e:4x4", b"h100x8", b"cpu:8"]
    yield "topology", Parser(names, lambda x: topology.parse(x.decode(errors="replace")))

    def rows(content: bytes) -> Any:
        (folder / "metrics.jsonl").write_bytes(content)
        return metric_rows(folder)

    some = b"".join(
        json.dumps({"step": n, "split": "train", "loss": 1.5}).encode() + b"\n" for n in range(5)
    )
    yield "metrics.jsonl", Parser([some], rows)

    def format_of(content: bytes) -> Any:
        (folder / "of").mkdir(exist_ok=True)
        (folder / "of" / "run.json").write_bytes(content)
        return Resets.of(folder / "of")

    form = {"format": 1, "switchx": "0.2.0", **Resets(7, -1, ("data",)).form()}
    yield "run.json", Parser([json.dumps(form).encode()], format_of)

    def path(content: bytes) -> Any:
        name = str(storage.local_path(os.fsdecode(content), "MODEL_DIR"))
        storage.write_whole(folder / "paths" / name.replace("..", "").strip("/"), b"x")

    yield "path", Parser([b"~/runs/a", b"a [1]*?#%41/b:c", b"a"], path)

    yield "launcher's variables", Parser(_LAUNCHERS, _find_job)
    yield "settings that meet", Parser(_SETTINGS_THAT_MEET, _fits)

    def between_hosts(content: bytes) -> Any:
        with socket.create_server(("localhost", 0)) as server:
            there = socket.create_connection(server.getsockname())
            here, _ = server.accept()
        with here, there:
            there.sendall(content[:60_000])
            there.shutdown(socket.SHUT_WR)
            return Connection(here).receive(timeout=1.0)

    message = json.dumps({"index": 1, "count": 2, "facts": {"a": "b"}}).encode() + b"\n"
    yield "message between hosts", Parser([message], between_hosts, (ValueError, TimeoutError))


def main() -> int:
    """Prints a row for each parser."""
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_argument("names", nargs="*", help="parsers (default: all)")
    command.add_argument("--seconds", type=float, default=60.0, help="for each")
    command.add_argument("--seed", type=int, default=0)
    args = command.parse_args()
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = parsers(Path(folder))
        for name in args.names or chosen:
            result = fuzz(chosen[name], args.seconds, args.seed)
            found += len(result.findings)
            print(
                f"{name:<20} {result.inputs:>9,} inputs, {result.accepted:>9,} accepted, slowest "
                f"{result.slowest * 1e3:6.1f} ms, {len(result.findings)} findings",
                flush=True,
            )
            for sentence, content in result.findings.items():
                print(f"  {sentence}\n    {content[:300]!r}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
