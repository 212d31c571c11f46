"""Sparse upcycling: what the new model computes follows from what the dense one computes."""

import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from switchx.cli.main import main
from switchx.errors import UserError
from switchx.interop.upcycling import upcycle
from switchx.model import NO_NOISE, Model
from switchx.model.switch_layer import Grouping
from switchx.training.merging import OF_EXPERT
from tests.helpers import init, random_inputs, switch_config, tiny_config, with_switch
from tests.interop.t5x_files import checkpoint_arrays, target_arrays, write_checkpoint

KINDS = {
    "every other": dict(every=2, activation="relu"),
    "all, gated": dict(every=1, activation="geglu", tied_embeddings=False),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return dict(KINDS[request.param])


def configs(kind, **switch):
    """(dense, switch) configurations of the same sizes, four layers per stack."""
    every = kind.pop("every")
    room = dict(eval_capacity_factor=4.0, every=every)
    sizes = dict(num_layers=4, **kind)
    sparse = tiny_config(switch=switch_config(**room, **switch), **sizes)
    return tiny_config(switch=None, **sizes), sparse


def upcycled(dense, sparse):
    """(dense, switch) parameters; the dense ones all differ, the norms' scales too."""
    params = init(dense, seed=1)
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    leaves = [x * rng.uniform(0.5, 1.5, x.shape).astype(np.float32) for x in leaves]
    params = jax.tree.unflatten(treedef, leaves)
    return params, upcycle(sparse, params, init(sparse, seed=3))


def logits(config, params):
    model = Model.of(config)
    return jax.jit(lambda p: model.bind(p)(*random_inputs(), NO_NOISE).logits_BLV)(params)


def test_gates_that_sum_to_one_keep_the_dense_models_logits(kind):
    """With two equal experts per token, weighted by gates of sum 1, nothing changes."""
    dense, sparse = configs(kind, top_k=2)
    params, ours = upcycled(dense, sparse)
    mask_BL = random_inputs().decoder_mask_BL  # the others are not routed
    got, wanted = (logits(c, p)[mask_BL] for c, p in ((sparse, ours), (dense, params)))
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_experts_in_any_layers_keep_the_dense_models_logits():
    """As above, where several rows of blocks come of the dense model's one."""
    sizes = dict(num_layers=3)
    where = dict(encoder_sparse=(0,), decoder_sparse=2, top_k=2, eval_capacity_factor=4.0)
    dense = tiny_config(switch=None, **sizes)
    sparse = tiny_config(switch=switch_config(**where), **sizes)
    assert min(len(shape.blocks) for shape in sparse.stacks.values()) > 1
    params, ours = upcycled(dense, sparse)
    mask_BL = random_inputs().decoder_mask_BL
    got, wanted = (logits(c, p)[mask_BL] for c, p in ((sparse, ours), (dense, params)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_one_expert_gives_the_dense_output_times_its_gate(kind):
    dense, sparse = configs(kind)
    params, ours = upcycled(dense, sparse)
    x_BLD = np.random.default_rng(4).standard_normal((2, 16, 16)).astype(np.float32)
    every = sparse.switch.every
    graphdef, state = nnx.split(Model.of(sparse).bind(ours).decoder.blocks)

    @jax.jit
    def last_layer(state):
        switch = nnx.merge(graphdef, state).layers[-1].feed_forward.switch
        mask_BL = np.ones((2, 16), bool)
        return switch(x_BLD, mask_BL, Grouping.of(sparse.switch, True, False), NO_NOISE)

    for block in range(4 // every):
        y_BLD, routed = last_layer(jax.tree.map(lambda x, n=block: x[n], state))
        assert routed.stats.dropped_fraction == 0

        ff = params["decoder"]["blocks"]["layer_0"]["feed_forward"]["dense"]
        layer = {name: np.asarray(value[block * every + every - 1]) for name, value in ff.items()}
        router = ours["decoder"]["blocks"][f"layer_{every - 1}"]["feed_forward"]["switch"]
        router_logits = x_BLD @ np.asarray(router["router"]["kernel_DE"][block])
        probs = np.exp(router_logits) / np.exp(router_logits).sum(-1, keepdims=True)
        expected = probs.max(-1, keepdims=True) * dense_feed_forward(layer, x_BLD)
        np.testing.assert_allclose(y_BLD, expected, rtol=1e-4, atol=1e-5)


def test_wider_experts_are_the_dense_feed_forward_and_narrow_ones_its_parts():
    """Of d_ff 32: 80 has its units two or three times, two of 16 share them."""
    dense, sparse = configs(dict(every=2, activation="relu"))
    widths = ((2, 16), (2, 80))
    sparse = with_switch(sparse, expert_widths=widths)
    params, ours = upcycled(dense, sparse)
    x_BLD = np.random.default_rng(4).standard_normal((2, 3, 16)).astype(np.float32)
    ff = params["decoder"]["blocks"]["layer_0"]["feed_forward"]["dense"]
    expected = dense_feed_forward({name: np.asarray(x[3]) for name, x in ff.items()}, x_BLD)
    experts = ours["decoder"]["blocks"]["layer_1"]["feed_forward"]["switch"]["experts"]

    def computed(width, expert):
        kernels = {name: np.asarray(x[1, expert]) for name, x in experts[width].items()}
        return dense_feed_forward({OF_EXPERT[name]: x for name, x in kernels.items()}, x_BLD)

    for expert in range(2):
        found = computed("width_1", expert)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    parts = computed("width_0", 0) + computed("width_0", 1)
    np.testing.assert_allclose(parts, expected, rtol=1e-4, atol=1e-5)


def dense_feed_forward(layer, x_BLD):
    """relu(x wi) wo, or gelu(x gate) (x wi) wo with the tanh form of GELU (T5 1.1)."""
    h_BLF = x_BLD @ layer["wi_DF"]
    if "gate_DF" not in layer:
        return np.maximum(h_BLF, 0) @ layer["wo_FD"]
    g = x_BLD @ layer["gate_DF"]
    gelu = g * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)))
    return (gelu * h_BLF) @ layer["wo_FD"]


def test_routers_are_fresh_and_differ():
    dense, sparse = configs(dict(every=2))
    _, ours = upcycled(dense, sparse)
    fresh = init(sparse, seed=3)
    for stack in ("encoder", "decoder"):
        of = lambda p: p[stack]["blocks"]["layer_1"]["feed_forward"]["switch"]["router"]  # noqa: B023, E731
        np.testing.assert_array_equal(of(ours)["kernel_DE"], of(fresh)["kernel_DE"])


RUN = (
    "--gin.MIXTURE_OR_TASK_NAME=python_docs_span_corruption",
    "--gin.TRAIN_STEPS=12",
    "--gin.DTYPE=float32",
    "--gin.VOCABULARY='bytes'",
    "--gin.BATCH_SIZE=8",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
)
SWITCH = (
    "--gin.NUM_EXPERTS=4",
    "--gin.ENCODER_GROUP_SIZE=32",
    "--gin.DECODER_GROUP_SIZE=16",
    "--gin.MESH_EXPERT=4",
)


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    """The run of a dense model that T5X trained for 10 steps."""
    folder = tmp_path_factory.mktemp("dense")
    source = write_checkpoint(folder, checkpoint_arrays(target_arrays(V=360, sparse=(), L=2)))
    argv = ["import", "--from=t5x", f"--input={source}", f"--model_dir={folder / 'run'}", *RUN]
    assert main(argv) == 0
    return folder / "run"


@pytest.fixture
def upcycling(command, dense_run, tmp_path):
    """Calls `switchx upcycle` on a dense run in ./dense."""
    shutil.copytree(dense_run, tmp_path / "dense")
    return lambda *flags: command("upcycle", *flags)


def test_the_command(upcycling, command):
    outcome = upcycling("--from_dir=dense", "--model_dir=new", *SWITCH)
    assert outcome.status == 0, outcome.err
    assert "step 10" in outcome.out

    from switchx.sharding import MeshConfig, make_mesh
    from switchx.training.checkpoints import restore_params
    from tests.interop.test_t5x_command import resumed

    setup, state = resumed("new")
    dense, _ = restore_params(
        Model.of(resumed("dense")[0].run.model), "dense", make_mesh(MeshConfig())
    )
    assert int(state.step) == 10
    experts = state.params["encoder"]["blocks"]["layer_1"]["feed_forward"]["switch"]["experts"]
    wi_DF = dense["encoder"]["blocks"]["layer_0"]["feed_forward"]["dense"]["wi_DF"][1]
    for e in range(4):
        np.testing.assert_array_equal(experts["wi_EDF"][0, e], wi_DF)
    assert experts["wi_EDF"].sharding.spec[1] == "expert"
    fresh = jax.jit(setup.model.init)(jax.random.key(setup.run.trainer.seed))
    router = lambda p: p["encoder"]["blocks"]["layer_1"]["feed_forward"]["switch"]["router"]  # noqa: E731
    ours, theirs = (router(params)["kernel_DE"] for params in (state.params, fresh))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # two programs round differently
    # The schedule goes on; the moments and their own count are fresh.
    *moments, schedule = jax.tree.leaves(state.opt_state)
    assert int(schedule) == 10
    assert all(not np.any(moment) for moment in moments)
    again = upcycling("--from_dir=new", "--model_dir=newer", *SWITCH)
    assert again.status == 2
    assert "has switch layers already" in again.err


@pytest.mark.parametrize(
    ("flags", "message"),
    {
        "sizes": (["--gin.ModelConfig.d_ff=48"], "ModelConfig.d_ff=48, but the dense model"),
        "layers": (["--gin.ModelConfig.num_layers=4"], "ModelConfig.num_layers=4, but"),
        "activation": (["--gin.ModelConfig.activation='geglu'"], "activation='geglu', but"),
        "nothing left": (["--gin.TRAIN_STEPS=10"], "TRAIN_STEPS=10 leaves nothing to train"),
        "no run": (["--from_dir=nowhere"], "--from_dir=nowhere holds no config.gin"),
        "there already": (["--model_dir=dense"], "--model_dir='dense' exists already"),
    }.values(),
)
def test_what_does_not_fit_is_one_line(upcycling, flags, message):
    outcome = upcycling("--from_dir=dense", "--model_dir=new", *SWITCH, *flags)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_dense_model_is_refused_as_the_new_one(upcycling):
    outcome = upcycling("--from_dir=dense", "--model_dir=new", "--gin.ModelConfig.switch=None")
    assert outcome.status == 2
    assert "makes a dense model" in outcome.err


def test_a_part_without_a_counterpart_is_refused():
    dense, sparse = configs(dict(every=2))
    fresh = init(sparse)
    fresh["encoder"]["blocks"]["layer_0"]["extra"] = {"scale_D": np.ones((2, 16))}
    with pytest.raises(UserError, match="layer_0/extra/scale_D has no counterpart"):
        upcycle(sparse, init(dense), fresh)


def test_a_part_with_two_successors_is_refused():
    """An extra dense feed-forward beside the experts would do their work a second time."""
    dense, sparse = configs(dict(every=2))
    fresh = init(sparse)
    feed_forwards = [fresh["encoder"]["blocks"][f"layer_{i}"]["feed_forward"] for i in (0, 1)]
    feed_forwards[1]["dense"] = feed_forwards[0]["dense"]
    with pytest.raises(UserError, match=r"would both start as .* feed_forward/dense/wi_DF"):
        upcycle(sparse, init(dense), fresh)
