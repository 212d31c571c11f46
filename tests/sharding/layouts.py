"""Where every parameter and activation of a configuration lies on a mesh, as JSON.

python -m tests.sharding.layouts writes tests/sharding/golden/ anew: a change of layout then shows
as a difference in review.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax._src import source_info_util
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractMesh

from switchx.model import Noise
from switchx.settings import Binding, Request, load
from switchx.sharding import MESH_AXES
from switchx.training.state import Setup
from switchx.training.step import abstract_batch

FOLDER = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[2]

ENCODER_ALONE = {
    "ModelConfig.num_decoder_layers": 0,
    "MIXTURE_OR_TASK_NAME": "c4_v310_masked_lm",
    "TASK_FEATURE_LENGTHS": {"inputs": 512, "targets": 512},
}
# Name: model, and sizes of replica, data, expert and model; "fully" for fully sharded state.
LAYOUTS: dict[str, tuple[str, tuple[int, int, int, int], bool]] = {
    "t5_base.data_8": ("t5_base", (1, 8, 1, 1), False),
    "t5_base.model_4": ("t5_base", (1, 1, 1, 4), False),
    "switch_base_128.data_2_expert_64": ("switch_base_128", (1, 2, 64, 1), False),
    "switch_xxl_128.data_4_expert_32_model_2.fully": ("switch_xxl_128", (1, 4, 32, 2), True),
    "switch_c_2048.replica_2_expert_256": ("switch_c_2048", (2, 1, 256, 1), False),
    "switch_base_16.data_2_expert_4_model_2.encoder": ("switch_base_16", (1, 2, 4, 2), False),
    "switch_c_2048_hf.data_2_expert_8_model_2": ("switch_c_2048_hf", (1, 2, 8, 2), False),
}


def layout(name: str) -> dict[str, Any]:
    """The parameters, optimizer state and activations of one of LAYOUTS."""
    model, sizes, fully_sharded = LAYOUTS[name]
    values = {"FULLY_SHARDED": fully_sharded, "TFDS_DATA_DIR": None}
    values |= ENCODER_ALONE if name.endswith(".encoder") else {}
    values |= {f"MESH_{a.upper()}": n for a, n in zip(MESH_AXES, sizes, strict=True)}
    asked = Request(
        gin_files=(f"configs/models/{model}.gin", "configs/runs/pretrain_c4.gin"),
        bindings=tuple(Binding(name, value, name) for name, value in values.items()),
        search_paths=(str(REPOSITORY),),
    )
    setup = Setup.of(load(asked).run, AbstractMesh(sizes, MESH_AXES))
    return {
        "mesh": dict(zip(MESH_AXES, sizes, strict=True)),
        "parameters": placed(setup.abstract.params),
        "optimizer": placed(setup.abstract.opt_state),
        "activations": activations(setup),
    }


def placed(tree: Any) -> dict[str, str]:
    """Of every array its shape, what one device holds of it, and the partition."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{shape(leaf.shape)} on each device {shape(leaf.sharding.shard_shape(leaf.shape))}: "
            f"{partition(leaf.sharding.spec)}"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def activations(setup: Setup) -> list[str]:
    """Every array that the forward pass pins to the mesh, once each, in order."""

    def forward(params: Any, batch: Any) -> Any:
        rows = jax.numpy.arange(setup.run.batch.batch_size, dtype=jax.numpy.uint32)
        noise = Noise.for_rows(0, jax.numpy.int32(0), rows)
        module = setup.model.bind(params)
        if setup.run.model.encoder_alone:
            return module.at_inputs(batch["encoder_input_tokens"], noise).logits_BLV
        output = module(
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"] > 0,
            noise,
        )
        return output.logits_BLV

    with jax.sharding.use_abstract_mesh(setup.mesh):
        batch = abstract_batch(setup.run.batch, setup)
        jaxpr = jax.make_jaxpr(forward)(setup.abstract.params, batch)
    return list(dict.fromkeys(pinned(jaxpr.jaxpr)))


def pinned(jaxpr: Any, within: str = "") -> Iterator[str]:
    """Function, dtype, shape and partition of each sharding constraint within."""
    for equation in jaxpr.eqns:
        name = function(equation) or within
        if equation.primitive.name == "sharding_constraint":
            (array,) = (variable.aval for variable in equation.outvars)
            spec = partition(equation.params["sharding"].spec)
            yield f"{name}: {array.dtype} {shape(array.shape)}: {spec}"
        for inner in jaxprs_in_params(equation.params):
            yield from pinned(inner, name)


def function(equation: Any) -> str | None:
    """The function of the model that an operation comes from; None if it does not say."""
    for frame in source_info_util.user_frames(equation.source_info.traceback):
        if "switchx/model" in frame.file_name:
            return f"{Path(frame.file_name).stem}.{frame.function_name}"
    return None


def shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "scalar"


def partition(spec: Any) -> str:
    names = ["+".join(part) if isinstance(part, tuple) else part or "-" for part in spec]
    return ", ".join(names) or "whole"


def text(name: str) -> str:
    return json.dumps(layout(name), indent=1) + "\n"


if __name__ == "__main__":
    for each in LAYOUTS:
        (FOLDER / f"{each}.json").write_text(text(each))
