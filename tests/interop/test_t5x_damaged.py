"""Damaged and hostile T5X checkpoints are refused in one sentence that names what is wrong."""

import os
import shutil

import msgpack
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.interop import open_source
from tests.interop.t5x_files import (
    checkpoint_arrays,
    read_index,
    target_arrays,
    write_checkpoint,
    write_index,
)
from tests.interop.test_t5x import setup_for

KERNEL = "encoder/layers_1/mlp/expert/wi/kernel"
FOLDER = f"target.{KERNEL.replace('/', '.')}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5x")
    return write_checkpoint(folder, checkpoint_arrays(target_arrays(L=4, sparse=(1, 3))))


@pytest.fixture(scope="module")
def setup(written):
    return setup_for(open_source("t5x", str(written)).model_fields)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint_10")


def in_target(index, name):
    """The node above an array of the index, and the array's name in it."""
    node = index["optimizer"]["target"]
    *above, last = name.split("/")
    for key in above:
        node = node[key]
    return node, last


def specification(index, name=KERNEL):
    node, last = in_target(index, name)
    return node[last]


def edited(change):
    """A damage that changes the index."""

    def damage(folder):
        index = read_index(folder)
        change(index)
        write_index(folder, index)

    return damage


def without(name):
    def drop(index):
        node, last = in_target(index, name)
        del node[last]

    return edited(drop)


def with_path(path):
    return edited(lambda index: specification(index)["kvstore"].update(path=path))


def truncated(name, keep):
    return lambda folder: os.truncate(folder / name, keep)


def replaced(name, value):
    def replace(index):
        node, last = in_target(index, name)
        node[last] = value

    return edited(replace)


def linked(folder):
    """A folder that is a link to elsewhere."""
    elsewhere = folder.parent / "elsewhere"
    shutil.move(folder / FOLDER, elsewhere)
    (folder / FOLDER).symlink_to(elsewhere)


def nested(folder):
    tree: dict = {}
    for _ in range(200):
        tree = {"a": tree}
    write_index(folder, {"optimizer": tree})


DAMAGES = {
    "no index": (lambda f: os.remove(f / "checkpoint"), "holds no file named checkpoint"),
    "truncated index": (truncated("checkpoint", 5000), "is damaged"),
    "empty index": (truncated("checkpoint", 0), "is damaged"),
    "index of numbers": (
        lambda f: (f / "checkpoint").write_bytes(msgpack.packb([1, 2])),
        "is not the index of a T5X checkpoint",
    ),
    "pickle in the index": (
        replaced(KERNEL, msgpack.ExtType(5, b"cos\nsystem\n")),
        "is damaged",
    ),
    "inline object array": (
        replaced(KERNEL, msgpack.ExtType(1, msgpack.packb(([1], "object", b"12345678")))),
        "is damaged",
    ),
    "inline array of too few bytes": (
        replaced(KERNEL, msgpack.ExtType(1, msgpack.packb(([2], "float32", b"1234")))),
        "is damaged",
    ),
    "nested without end": (nested, "is damaged"),
    "a string for an array": (replaced(KERNEL, "zarr"), f"{KERNEL} is not an array"),
    "negative shape": (
        edited(lambda i: specification(i)["metadata"].update(shape=[-4, 16, 24])),
        f"{KERNEL} has no usable zarr specification",
    ),
    "another driver": (
        edited(lambda i: specification(i).update(driver="json")),
        f"{KERNEL} has no usable zarr specification",
    ),
    "path above": (with_path("../secret"), "'../secret' for target/.* not a folder within"),
    "absolute path": (with_path("/etc"), "'/etc' for target/.* not a folder within"),
    "dots": (with_path(".."), "'..' for target/.* not a folder within"),
    "deeper path": (with_path("a/b"), "'a/b' for target/.* not a folder within"),
    "link to elsewhere": (linked, f"'{FOLDER}' for target/.* not a folder within"),
    "missing array": (without(KERNEL), f"has no array target/{KERNEL}"),
    "missing embedding": (without("token_embedder/embedding"), "has no array target/token_emb"),
    "missing folder": (lambda f: shutil.rmtree(f / FOLDER), f"{KERNEL} .* cannot be read"),
    "missing chunk": (lambda f: os.remove(f / FOLDER / "1.0.0"), f"{KERNEL} .* is missing"),
    "truncated chunk": (truncated(f"{FOLDER}/1.0.0", 40), f"{KERNEL} .* cannot be read"),
    "truncated metadata": (truncated(f"{FOLDER}/.zarray", 20), f"{KERNEL} .* cannot be read"),
    "another shape": (
        edited(lambda i: specification(i)["metadata"].update(shape=[4, 16, 23])),
        f"{KERNEL} .* has the shape \\[4, 16, 23\\]",
    ),
    "another shape on disk": (
        lambda f: shutil.copy(
            f / "target.encoder.layers_1.mlp.expert.wo.kernel/.zarray", f / FOLDER / ".zarray"
        ),
        f"{KERNEL} .* it holds float32\\[4, 24, 16\\], and the index says \\[4, 16, 24\\]",
    ),
    "another type on disk": (
        lambda f: (f / FOLDER / ".zarray").write_text(
            (f / FOLDER / ".zarray").read_text().replace("<f4", "<f2")
        ),
        f"{KERNEL} .* it holds float16\\[4, 16, 24\\], and float32 or bfloat16 is read",
    ),
    "not fetched": (
        lambda f: (f / "checkpoint").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "--input leads to '.*checkpoint', which is a Git LFS pointer",
    ),
    "left over": (
        edited(lambda i: i["optimizer"]["target"].update(extra=specification(i))),
        "target/extra of the T5X checkpoint has no place",
    ),
    "a layer less": (
        edited(lambda i: i["optimizer"]["target"]["decoder"].pop("layers_3")),
        "where the model's sizes make it|A T5X checkpoint has no decoder/blocks",
    ),
    "heads that do not divide": (
        edited(
            lambda i: specification(i, "encoder/relpos_bias/rel_embedding")["metadata"].update(
                shape=[3, 32]
            )
        ),
        "3 relative position heads",
    ),
    "a step that is none": (
        edited(
            lambda i: i["optimizer"]["state"].update(
                step=msgpack.ExtType(1, msgpack.packb(([], "int32", b"\xff\xff\xff\xff")))
            )
        ),
        "state/step .* is not a number of steps",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_in_one_sentence(folder, setup, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_source("t5x", str(folder)).params(setup.abstract.params)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_undamaged_copy_is_read(folder, setup):
    params = open_source("t5x", str(folder)).params(setup.abstract.params)
    assert np.all(np.isfinite(params["embedding"]["table_VD"]))


def test_the_folder_above_is_advised_against(folder):
    with pytest.raises(UserError, match="checkpoint_10 in it does: name that"):
        open_source("t5x", str(folder.parent))
    with pytest.raises(UserError, match=f"checkpoint, but is one: name the folder {folder}"):
        open_source("t5x", str(folder / "checkpoint"))


def test_what_orbax_wrote_is_called_so(tmp_path):
    (tmp_path / "_METADATA").touch()
    with pytest.raises(UserError, match="but what Orbax writes, also for later versions of T5X"):
        open_source("t5x", str(tmp_path))
