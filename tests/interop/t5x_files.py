"""Checkpoints in T5X's layout, written by the tests, and what the switch_tiny one holds."""

import json
import tarfile
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest

ARCHIVE = Path(__file__).parents[3] / "shared/data/t5x/switch_tiny.tar.gz"
UNUSED = np.zeros(1, np.float32)


def unpack_switch_tiny(folder: Path) -> Path:
    """The folder of switch_tiny, written by T5X."""
    if not ARCHIVE.exists():
        pytest.skip("../shared/data/t5x/switch_tiny.tar.gz is not beside the repository")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "switch_tiny"


def target_arrays(
    seed=0, V=40, D=16, F=24, H=2, K=4, L=2, E=4, sparse=(1,), gated=False, tied=True, decoder=None
):
    """Random parameters under flaxformer's names, without the leading "target/".

    `decoder`: its L and sparse, where they are not the encoder's.
    """
    rng = np.random.default_rng(seed)
    shapes = {"token_embedder/embedding": (V, D)}
    if not tied:
        shapes["decoder/logits_dense/kernel"] = (D, V)
    attentions = {
        "encoder": {"attention": "pre_attention_layer_norm"},
        "decoder": {
            "self_attention": "pre_self_attention_layer_norm",
            "encoder_decoder_attention": "pre_cross_attention_layer_norm",
        },
    }
    for stack, sublayers in attentions.items():
        shapes[f"{stack}/relpos_bias/rel_embedding"] = (H, 32)
        shapes[f"{stack}/{stack}_norm/scale"] = (D,)
        L, sparse = decoder if decoder and stack == "decoder" else (L, sparse)
        for n in range(L):
            layer = f"{stack}/layers_{n}"
            for attention, norm in sublayers.items():
                shapes[f"{layer}/{norm}/scale"] = (D,)
                for name in ("query", "key", "value"):
                    shapes[f"{layer}/{attention}/{name}/kernel"] = (D, H * K)
                shapes[f"{layer}/{attention}/out/kernel"] = (H * K, D)
            shapes[f"{layer}/pre_mlp_layer_norm/scale"] = (D,)
            experts = (E,) if n in sparse else ()
            mlp = f"{layer}/mlp/expert" if n in sparse else f"{layer}/mlp"
            for name in ("wi_0", "wi_1") if gated else ("wi",):
                shapes[f"{mlp}/{name}/kernel"] = (*experts, D, F)
            shapes[f"{mlp}/wo/kernel"] = (*experts, F, D)
            if n in sparse:
                shapes[f"{layer}/mlp/router/router_weights/w/kernel"] = (D, E)
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def kept_dims(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Per statistic that T5X's Adafactor keeps of a parameter, the dimensions it has.

    With T5X's rules for mixtures of experts: "expert" is a batch dimension, "embed" the row and
    "mlp" the column of an expert's kernel, whatever their sizes. Up to two dimensions, v_row is
    without the largest and v_col without the second largest, if both are at least 128.
    """
    if len(shape) == 3:
        embed, mlp = (2, 1) if "/wo/" in name else (1, 2)
        return {"v_row": (0, embed), "v_col": (0, mlp)}
    if len(shape) == 2 and min(shape) >= 128:
        return (
            {"v_row": (0,), "v_col": (1,)}
            if shape[0] <= shape[1]
            else {"v_row": (1,), "v_col": (0,)}
        )
    return {"v": tuple(range(len(shape)))}


def checkpoint_arrays(target: dict[str, np.ndarray], step=10, seed=1) -> dict[str, np.ndarray]:
    """Everything a checkpoint holds: parameters, random statistics of each, the step."""
    rng = np.random.default_rng(seed)
    arrays = {f"target/{name}": value for name, value in target.items()}
    arrays["state/step"] = np.array(step, np.int32)
    for name, value in target.items():
        kept = kept_dims(name, value.shape)
        # Means of one second moment, as they are in earnest: v_row and v_col have the same mean.
        moment = rng.uniform(0.5, 2, value.shape).astype(np.float32)
        for kind in ("m", "v", "v_row", "v_col"):
            dims = set(range(value.ndim)) - set(kept.get(kind, ()))
            mean = moment.mean(axis=tuple(dims)) if kind in kept else UNUSED
            arrays[f"state/param_states/{name}/{kind}"] = mean
    return arrays


def write_checkpoint(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes zarr folders of gzipped chunks and the index, as T5X does; small ones go inline."""
    tree: dict = {}
    for name, value in arrays.items():
        *above, last = name.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        inline = value.shape in ((), (1,))
        node[last] = _inline(value) if inline else _stored(folder, name.replace("/", "."), value)
    write_index(folder, {"version": 3, "optimizer": tree})
    return folder


def write_index(folder: Path, index: dict) -> None:
    (folder / "checkpoint").write_bytes(msgpack.packb(index))


def read_index(folder: Path) -> dict:
    return msgpack.unpackb((folder / "checkpoint").read_bytes())


def _inline(value: np.ndarray) -> msgpack.ExtType:
    """flax.serialization's encoding of an array."""
    return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))


def _stored(folder: Path, name: str, value: np.ndarray) -> dict:
    """Two chunks along the first dimension where it is even. Returns the specification."""
    parts = 2 if value.shape[0] % 2 == 0 else 1
    chunk = (value.shape[0] // parts, *value.shape[1:])
    (folder / name).mkdir(parents=True)
    metadata = {"shape": value.shape, "chunks": chunk, "compressor": {"id": "gzip", "level": 1}}
    zarray = metadata | {"dtype": "<f4", "fill_value": None, "filters": None, "order": "C"}
    (folder / name / ".zarray").write_text(json.dumps(zarray | {"zarr_format": 2}))
    for i, part in enumerate(np.split(value, parts)):
        coded = zlib.compressobj(1, wbits=31)
        data = coded.compress(part.astype("<f4").tobytes()) + coded.flush()
        (folder / name / ".".join(["0"] * value.ndim).replace("0", str(i), 1)).write_bytes(data)
    kvstore = {"driver": "file", "path": f"{name}/"}
    return {"driver": "zarr", "dtype": "float32", "kvstore": kvstore, "metadata": metadata}
