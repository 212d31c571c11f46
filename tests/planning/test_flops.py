"""The products of a step against XLA's count, and what they are for against closed forms."""

import math
import re

import jax
import pytest

from switchx.model.counts import forward_flops
from switchx.model.dispatch import sorted_product
from switchx.planning.flops import count_flops
from switchx.planning.hlo import Program
from switchx.planning.products import Counter
from switchx.sharding import MeshConfig
from tests.planning.helpers import BATCH, INPUTS, TARGETS, D, E, F, H, K, compiled_text, setup

INNER = H * K
TOKENS = BATCH * (INPUTS + TARGETS)
CALLERS = ("while", "call", "fusion", "conditional", "custom-call")
LENGTHS = (INPUTS, TARGETS)


def shape(text):
    """Of an array in HLO's notation."""
    return [int(n) for n in re.search(r"\[([\d,]*)\]", text)[1].split(",") if n]


def multiplied(text: str) -> int:
    """FLOPs of the matrix products in a program."""
    program = Program(text)
    total = 0
    for times, _, product in program.running(CALLERS):
        if product.opcode == "dot":
            lhs = shape(program.named[product.operands[0]].shape)
            (axes,) = re.findall(r"lhs_contracting_dims=\{([\d,]*)\}", product.rest)
            terms = math.prod(lhs[int(axis)] for axis in axes.split(","))
            total += times * 2 * terms * math.prod(shape(product.shape))
    return total


# One stack, where the other would show no more.
ENCODER = dict(num_decoder_layers=0)
# XLA adds up what is a product of two vectors: the gates' gradients and the balance loss.
ADDED_UP = 2 * BATCH * INPUTS * (D + E)


@pytest.mark.parametrize(
    ("changes", "sums"),
    [
        (dict(scan=False, switch={}, **ENCODER), ADDED_UP),
        (dict(num_layers=2, remat="full"), 0),
        (dict(scan=False, switch=dict(train_capacity_factor=8 / 3), **ENCODER), ADDED_UP),
    ],
    ids=str,
)
def test_the_products_of_the_compiled_program(changes, sums):
    planned = setup(**changes)
    assert count_flops(planned).executed == multiplied(compiled_text(planned)) + sums


def attention(layers=1):
    """What attention does beyond the model's count, which has one of its two products.

    Three times the other, once more the first for the weights that the backward pass needs, and the
    sums over the batch for the gradient of the bias.
    """
    lengths = INPUTS**2 + TARGETS**2 + INPUTS * TARGETS
    biased = INPUTS**2 + TARGETS**2
    keys_values = INPUTS - TARGETS  # the model counts those of cross-attention by the target
    per_row = (3 + 1) * lengths * INNER + biased * H + 3 * keys_values * 2 * D * INNER
    return 2 * layers * BATCH * per_row


# The router, its gates' gradients, and the balance loss with its gradient.
ROUTING = 3 * 2 * TOKENS * D * E + 2 * TOKENS * D + 2 * 2 * TOKENS * E


@pytest.mark.parametrize(
    ("changes", "other"),
    [(dict(num_layers=2), attention(2)), (dict(switch={}), attention() + ROUTING)],
)
def test_what_the_model_does_not_count(changes, other):
    planned = setup(**changes)
    flops = count_flops(planned)
    assert flops.model == 3 * BATCH * forward_flops(planned.run.model, INPUTS, TARGETS)
    assert flops.waste["other"] == other
    assert flops.executed == flops.model + sum(flops.waste.values())
    assert flops.waste["dispatch"] == flops.waste["rematerialization"] == 0


def capacities(factor):
    """Tokens of each stack, and the slots of an expert in one of its groups."""
    return [(BATCH * length, max(1, int(factor * length / E))) for length in LENGTHS]


def padding(factor):
    held = sum(BATCH * E * capacity for _, capacity in capacities(factor))
    return 3 * 2 * 2 * D * F * (held - TOKENS)


def test_tokens_without_a_slot_are_less_than_the_model_counts():
    flops = count_flops(setup(switch=dict(train_capacity_factor=0.5)))
    assert flops.waste["capacity padding"] == padding(0.5) < 0
    assert flops.waste["other"] == attention() + ROUTING


def test_slots_without_a_token_and_one_hot_products():
    flops = count_flops(setup(switch=dict(dispatcher="einsum", train_capacity_factor=2.0)))
    assert flops.waste["capacity padding"] == padding(2.0) > 0
    assert flops.waste["other"] == attention() + ROUTING
    # Two products there and three back, since masks have no gradient; the masks themselves; the
    # gates' gradients are no product of their own.
    own = sum(tokens * capacity for tokens, capacity in capacities(2.0))
    one_hot = 5 * 2 * D * E * own + 6 * E * own + 6 * own - 2 * TOKENS * D
    assert flops.waste["dispatch"] == one_hot


def test_slots_of_several_widths_are_products_of_their_own_width():
    """Experts of 24 and 72: nothing is computed at the width of the widest."""
    switch = dict(expert_widths=((4, 24), (4, 72)), balance_by="cost", train_capacity_factor=2)
    flops = count_flops(setup(switch=switch))
    rate, width = (3, 1), 36  # of tokens for each expert, and what a token then takes on average
    held = 0
    for length in LENGTHS:
        slots = [int(2 * length * own / (4 * sum(rate)) + 1e-9) for own in rate]
        held += BATCH * 4 * (slots[0] * 24 + slots[1] * 72)
    assert flops.waste["capacity padding"] == 3 * 2 * 2 * D * (held - TOKENS * width)
    assert flops.waste["other"] == attention() + ROUTING


def test_rematerialization():
    """The forward pass of the blocks, without the feed-forward's last product: nothing needs it.

    And attention's weights, which are there then, are not computed once more.
    """
    flops, kept = (count_flops(setup(num_layers=2, remat=remat)) for remat in ("full", "none"))
    per_token = 4 * D * INNER + D * F  # queries, keys, values, output; the feed-forward's first
    cross = TARGETS * 2 * D * INNER + INPUTS * 2 * D * INNER
    weights_and_values = INPUTS**2 + TARGETS**2 + INPUTS * TARGETS
    forward = (INPUTS + TARGETS) * per_token + cross + weights_and_values * INNER
    assert flops.waste["rematerialization"] == 2 * 2 * BATCH * forward
    assert flops.executed - kept.executed == flops.waste["rematerialization"]
    assert flops.waste["other"] == kept.waste["other"]


def test_dots_keep_the_products_of_experts_too():
    """Attention's weights and values alone are computed again."""
    flops = count_flops(setup(num_layers=2, remat="dots", switch={}, **ENCODER))
    assert flops.waste["rematerialization"] == 2 * 2 * BATCH * INPUTS**2 * INNER


@pytest.mark.parametrize(("dispatcher", "remat"), [("index", "dots"), ("ragged", "none")])
def test_frozen_experts_have_no_gradient(dispatcher, remat):
    """A third of their products: those of each matrix's gradient, over all rows there are."""
    layers, tokens = 2, BATCH * INPUTS
    changes = dict(switch=dict(dispatcher=dispatcher), num_layers=layers, remat=remat, **ENCODER)
    flops = count_flops(setup(**changes, frozen=("experts",)))
    whole = count_flops(setup(**changes))
    rows = BATCH * E * capacities(1.25)[0][1]
    if dispatcher == "ragged":
        rows = E * 32 * math.ceil(tokens / E / 32)
    assert flops.executed == whole.executed - 2 * layers * 2 * D * F * rows
    assert flops.model == whole.model - 2 * layers * 2 * D * F * tokens
    assert flops.waste == {**whole.waste, "frozen": -2 * layers * 2 * D * F * (rows - tokens)}


@pytest.mark.parametrize("pools", [None, 4])
def test_experts_without_slots_of_their_own(pools):
    """As if each expert had as many rows from either half of the batch; its last block is full."""
    switch = dict(dispatcher="ragged", ragged_pools=pools)
    flops = count_flops(setup(MeshConfig(2, 4, 1), switch=switch))
    assert flops.waste["other"] == attention() + ROUTING
    rows = [BATCH // 2 * length // E for length in LENGTHS]
    empty = 2 * E * sum(-n % 32 for n in rows)
    assert flops.waste["capacity padding"] == 3 * 2 * 2 * D * F * empty


def test_slots_that_are_packed():
    """Of an expert's 256 and 128 slots 96 and 48 are filled, which are computed in blocks of 32."""
    flops = count_flops(setup(remat="full", switch=dict(train_capacity_factor=8 / 3)))
    padding = E * (-96 % 32 + -48 % 32)
    assert flops.waste["capacity padding"] == 3 * 2 * 2 * D * F * padding > 0
    assert flops.waste["other"] == attention() + ROUTING


def test_a_platform_counts_its_own_products(monkeypatch):
    """A GPU multiplies sorted rows in one kernel, which does not fill up an expert's last block."""
    share = 40
    arrays = [jax.ShapeDtypeStruct(of, "float32") for of in ((E * share, D), (E, D, F))]
    sizes = jax.ShapeDtypeStruct((E,), "int32")

    def counted(platform, whole_blocks):
        monkeypatch.setattr(sorted_product, "platform", lambda: platform)

        def run(x_RD, kernel_EDF, size_E):
            product = lambda *both: sorted_product.sorted_product(*both, size_E, share)  # noqa: E731
            y_RF, back = jax.vjp(product, x_RD, kernel_EDF)
            return y_RF, *back(y_RF)

        return Counter(platform, whole_blocks).count(jax.make_jaxpr(run)(*arrays, sizes))

    assert counted("cpu", whole_blocks=False) == 3 * 2 * E * share * D * F
    assert counted("gpu", whole_blocks=True) == 3 * 2 * E * share * D * F
    assert counted("cpu", whole_blocks=True) == 3 * 2 * E * 64 * D * F
    assert counted("tpu", whole_blocks=True) == 3 * 2 * E * 512 * D * F
