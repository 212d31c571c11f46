"""T5X's checkpoints: the numbers T5X computes from one, and every array where it belongs."""

import jax
import numpy as np
import pytest

from switchx.interop import open_source
from switchx.interop.t5x_index import StoredArray
from switchx.model import NO_NOISE, ModelConfig, SwitchConfig
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.state import Setup
from tests.interop.t5x_files import (
    checkpoint_arrays,
    target_arrays,
    unpack_switch_tiny,
    write_checkpoint,
)
from tests.training.helpers import run_config


@pytest.fixture(scope="module")
def switch_tiny(tmp_path_factory):
    return unpack_switch_tiny(tmp_path_factory.mktemp("t5x"))


def setup_for(fields, mesh=MeshConfig(1), **switch):  # noqa: B008
    """A run with the sizes that a source found."""
    of = lambda part: {  # noqa: E731
        name.split(".")[1]: value for name, value in fields.items() if name.startswith(part)
    }
    sizes = of("ModelConfig.")
    layers = SwitchConfig(**of("SwitchConfig."), **switch) if sizes.pop("switch") else None
    model = ModelConfig(**sizes, switch=layers, dtype="float32")
    devices = jax.devices()[: mesh.data * mesh.expert * mesh.model]
    return Setup.of(run_config(model=model), make_mesh(mesh, devices))


# flaxformer's mixtures make at least as many groups as experts: here one of each sequence.
GROUPS = {"encoder_group_size": 32, "decoder_group_size": 16}


@pytest.fixture(scope="module")
def tiny(switch_tiny):
    """(setup, params, golden) of switch_tiny."""
    source = open_source("t5x", str(switch_tiny / "checkpoint_10"))
    setup = setup_for(source.model_fields, **GROUPS)
    return setup, source.params(setup.abstract.params), np.load(switch_tiny / "golden.npz")


def forward(setup, params, golden):
    """Logits and statistics of the golden inputs."""

    def run(params):
        out = setup.model.bind(params)(
            golden["encoder_input_tokens"],
            golden["decoder_input_tokens"],
            golden["decoder_target_tokens"] > 0,
            NO_NOISE,
        )
        return out.logits_BLV, out.stats_N

    return jax.jit(run)(params)


def test_the_sizes_are_those_of_the_checkpoint(switch_tiny):
    source = open_source("t5x", str(switch_tiny / "checkpoint_10"))
    assert source.step == 10
    assert source.model_fields == {
        "ModelConfig.vocab_size": 512,
        "ModelConfig.d_model": 32,
        "ModelConfig.d_ff": 64,
        "ModelConfig.d_kv": 16,
        "ModelConfig.num_heads": 2,
        "ModelConfig.num_layers": 4,
        "ModelConfig.num_decoder_layers": None,
        "ModelConfig.activation": "relu",
        "ModelConfig.tied_embeddings": True,
        "ModelConfig.relative_buckets": 32,
        "ModelConfig.scale_logits": None,
        "ModelConfig.bias_per_layer": False,
        "ModelConfig.switch": True,
        "SwitchConfig.num_experts": 4,
        "SwitchConfig.expert_widths": None,
        "SwitchConfig.every": 2,
        "SwitchConfig.encoder_sparse": None,
        "SwitchConfig.decoder_sparse": None,
    }


def test_real_tokens_have_the_logits_that_t5x_computes(tiny):
    """No real token is dropped there, so that padding is not routed here changes none."""
    logits_BLV, _ = forward(*tiny)
    golden = tiny[2]
    real_BL = golden["decoder_target_tokens"] > 0
    np.testing.assert_allclose(logits_BLV[real_BL], golden["logits"][real_BL], rtol=0, atol=1e-5)


def test_every_figure_of_t5x_where_groups_are_filled_as_there(switch_tiny):
    """Padding routed and all: SwitchConfig.group_padding='flaxformer', which import chooses where
    T5X would add to a batch; here it only says how padding is treated and groups are made."""
    source = open_source("t5x", str(switch_tiny / "checkpoint_10"))
    setup = setup_for(source.model_fields, group_padding="flaxformer")
    golden = np.load(switch_tiny / "golden.npz")
    logits_BLV, stats = forward(setup, source.params(setup.abstract.params), golden)
    real_BL = golden["decoder_target_tokens"] > 0
    np.testing.assert_allclose(logits_BLV[real_BL], golden["logits"][real_BL], rtol=0, atol=1e-5)
    tokens = {"encoder": 4 * 32, "decoder": 4 * 16}
    layers = [f"{stack}/layers_{n}" for stack in tokens for n in (1, 3)]
    for row, layer in enumerate(layers):
        dropped = float(stats.dropped_fraction[row])
        # T5X means the gates of what was not dropped; the one token that was is padding,
        # whose zeros give every expert the same probability.
        kept_gates = float(stats.gate_mean[row]) - dropped / 4
        figures = {
            "auxiliary_loss": stats.balance_loss[row],
            "router_z_loss": stats.z_loss[row],
            "fraction_tokens_left_behind": dropped,
            "router_confidence": kept_gates / (1 - dropped),
            "expert_usage": (1 - dropped) / 2,  # the capacity factor is 2
        }
        for name, ours in figures.items():
            theirs = golden[f"stats/{layer}/mlp/{name}"].item()
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, err_msg=f"{layer} {name}")
    assert sum(name.startswith("stats/") for name in golden.files) == len(layers) * len(figures)


SHAPES = {
    "every other layer": dict(L=4, sparse=(1, 3)),
    "c": dict(sparse=(0, 1), tied=False, D=20, E=8),
    "xxl": dict(L=4, sparse=(1, 3), gated=True, tied=False),
    "dense": dict(L=3, sparse=(), gated=True, tied=False),
    "uneven": dict(L=3, sparse=(1,), decoder=(5, (0, 3))),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_array_arrives_on_a_mesh(shape, tmp_path):
    target = target_arrays(**shape)
    source = open_source("t5x", str(write_checkpoint(tmp_path, checkpoint_arrays(target))))
    mesh = MeshConfig(2, 2, 2) if shape["sparse"] else MeshConfig(4, 1, 2)
    setup = setup_for(source.model_fields, mesh)
    params = source.params(setup.abstract.params)
    assert jax.tree.map(lambda p: p.sharding, params) == setup.shardings.params
    sizes = [value.size for value in target.values()]
    assert sum(p.size for p in jax.tree.leaves(params)) == sum(sizes)

    places = {
        ("embedding", "table_VD"): "token_embedder/embedding",
        ("decoder_bias", "table_HR"): "decoder/relpos_bias/rel_embedding",
        ("encoder_norm", "scale_D"): "encoder/encoder_norm/scale",
    }
    if not shape.get("tied", True):
        places["embedding", "logits_DV"] = "decoder/logits_dense/kernel"
    for path, name in places.items():
        np.testing.assert_array_equal(params[path[0]][path[1]], target[name])
    L, sparse = shape.get("decoder", (shape.get("L", 2), shape["sparse"]))
    assert setup.run.model.decoder.num_layers == L
    for n in range(L):
        blocks, layer, block = setup.run.model.decoder.place(n)
        own = of_layer(params["decoder"][blocks][f"layer_{layer}"], n in sparse, "gated" in shape)
        for name, ours in own.items():
            theirs = target[f"decoder/layers_{n}/{name}"]
            np.testing.assert_array_equal(ours[block], theirs, err_msg=f"{n} {name}")


def of_layer(params, sparse, gated):
    """Some parameters of a layer of the decoder, stacked, by T5X's names."""
    feed_forward = params["feed_forward"]
    mlp = feed_forward["switch"]["experts"] if sparse else feed_forward["dense"]
    suffix = "E" if sparse else ""
    inner = "mlp/expert" if sparse else "mlp"
    found = {
        "self_attention/key/kernel": params["attention"]["key_DT"],
        "encoder_decoder_attention/out/kernel": params["cross_attention"]["out_TD"],
        "pre_cross_attention_layer_norm/scale": params["cross_norm"]["scale_D"],
        "pre_mlp_layer_norm/scale": feed_forward["norm"]["scale_D"],
        f"{inner}/wo/kernel": mlp[f"wo_{suffix}FD"],
    }
    if sparse:
        router = feed_forward["switch"]["router"]["kernel_DE"]
        found["mlp/router/router_weights/w/kernel"] = router
    if gated:
        # gelu(x wi_0) * (x wi_1), as flaxformer orders ('gelu', 'linear').
        found[f"{inner}/wi_0/kernel"] = mlp[f"gate_{suffix}DF"]
        found[f"{inner}/wi_1/kernel"] = mlp[f"wi_{suffix}DF"]
    return found


def test_a_device_reads_its_own_slices_alone(tmp_path, monkeypatch):
    target = target_arrays(**SHAPES["c"])
    source = open_source("t5x", str(write_checkpoint(tmp_path, checkpoint_arrays(target))))
    setup = setup_for(source.model_fields, MeshConfig(1, 4, 2))
    largest: dict[str, int] = {}
    read = StoredArray.read

    def watched(self, index):
        part = read(self, index)
        largest[self.name] = max(largest.get(self.name, 0), part.size)
        return part

    monkeypatch.setattr(StoredArray, "read", watched)
    source.params(setup.abstract.params)
    source.opt_state(setup.abstract.opt_state)
    for name, share in {
        "target/encoder/layers_1/mlp/expert/wi/kernel": 8,
        "target/encoder/layers_0/attention/query/kernel": 2,
        "target/decoder/logits_dense/kernel": 2,
    }.items():
        assert largest[name] * share == target[name.removeprefix("target/")].size
    assert largest["state/param_states/encoder/layers_1/mlp/expert/wi/kernel/v_col"] == 2 * 12


def test_a_checkpoint_of_another_dtype_is_read_as_float32(tmp_path):
    """bfloat16 is what T5X writes when told to save in it."""
    import json
    import zlib

    folder = write_checkpoint(tmp_path, checkpoint_arrays(target_arrays()))
    scale = folder / "target.encoder.encoder_norm.scale"
    metadata = json.loads((scale / ".zarray").read_text())
    half = jax.numpy.arange(16, dtype="bfloat16")
    metadata |= {"dtype": "bfloat16", "compressor": {"id": "zlib", "level": 1}, "chunks": [16]}
    (scale / ".zarray").write_text(json.dumps(metadata))
    (scale / "0").write_bytes(zlib.compress(np.asarray(half).tobytes()))
    source = open_source("t5x", str(folder))
    params = source.params(setup_for(source.model_fields).abstract.params)
    assert params["encoder_norm"]["scale_D"].dtype == np.float32
    np.testing.assert_array_equal(params["encoder_norm"]["scale_D"], np.arange(16))
