"""Contract "counts": the published numbers of parameters and FLOPs, without allocating anything."""

import pytest

from switchx.model import Model, ModelConfig, SwitchConfig, forward_flops, parameter_count
from switchx.model.counts import parameters_per_token, train_flops
from switchx.model.groups import product_flops
from switchx.training.adapting import named
from tests.helpers import switch_config, tiny_config, with_switch


def t5(layers, d_model, d_ff, heads, d_kv, gated=False, tied=True, switch=None, vocab=32128):
    return ModelConfig(
        vocab_size=vocab,
        d_model=d_model,
        d_ff=d_ff,
        d_kv=d_kv,
        num_heads=heads,
        num_layers=layers,
        activation="geglu" if gated else "relu",
        tied_embeddings=tied,
        switch=switch,
    )


def switch_base(experts, **changes):
    return t5(12, 768, 3072, 12, 64, switch=SwitchConfig(experts, **changes))


PUBLISHED = {
    "t5 small": (t5(6, 512, 2048, 8, 64), 60_506_624),
    "t5 base": (t5(12, 768, 3072, 12, 64), 222_903_552),
    "t5 base, as table 9 has it": (t5(12, 768, 2048, 12, 64, gated=True), 222_903_552),
    "t5 large": (t5(24, 1024, 4096, 16, 64), 737_668_096),
    "t5 3B": (t5(24, 1024, 16384, 32, 128), 2_851_598_336),
    "t5 11B": (t5(24, 1024, 65536, 128, 128), 11_307_321_344),
    "t5 1.1 base": (t5(12, 768, 2048, 12, 64, True, False), 247_577_856),
    "t5 1.1 large": (t5(24, 1024, 2816, 16, 64, True, False), 783_150_080),
    "t5 1.1 xl": (t5(24, 2048, 5120, 32, 64, True, False), 2_849_757_184),
    "t5 1.1 xxl": (t5(24, 4096, 10240, 64, 64, True, False), 11_135_332_352),
    "mt5 small": (t5(8, 512, 1024, 6, 64, True, False, vocab=250112), 300_176_768),
    "switch base 8": (switch_base(8), 619_339_008),
    "switch base 16": (switch_base(16), 1_072_397_568),
    "switch base 32": (switch_base(32), 1_978_514_688),
    "switch base 64": (switch_base(64), 3_790_748_928),
    "switch base 128": (switch_base(128), 7_415_217_408),
    "switch base 256": (switch_base(256), 14_664_154_368),
    "moe base (top-2) 128": (switch_base(128, top_k=2), 7_415_217_408),
    "switch large 128": (
        t5(24, 1024, 4096, 16, 64, switch=SwitchConfig(128)),
        26_309_291_008,
    ),
    "switch xxl 128": (
        t5(24, 4096, 10240, 64, 64, True, False, SwitchConfig(128)),
        394_675_073_024,
    ),
    "switch c 2048": (
        t5(15, 2080, 6144, 32, 64, False, False, SwitchConfig(2048, every=1)),
        1_571_375_798_688,
    ),
    "st-moe 32B": (
        t5(24, 5120, 20480, 64, 128, True, False, SwitchConfig(64, 4, 2, extra_dense=True)),
        269_104_551_936,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters(name):
    """Both the formula and the model that the code builds."""
    config, expected = PUBLISHED[name]
    assert parameter_count(config) == expected
    assert Model.of(config).num_params == expected


BUILT = pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(switch=None),
        tiny_config(activation="geglu", tied_embeddings=False, num_layers=6),
        tiny_config(num_layers=3, switch=switch_config(every=3)),
        tiny_config(relative_buckets=16),
        tiny_config(num_layers=5, num_decoder_layers=3, bias_per_layer=True, activation="swiglu"),
        tiny_config(num_layers=5, num_decoder_layers=3),
        tiny_config(num_decoder_layers=0),
        tiny_config(num_layers=3, num_decoder_layers=0, tied_embeddings=False, switch=None),
        tiny_config(num_layers=4, switch=switch_config(encoder_sparse=(0, 3), decoder_sparse=())),
        tiny_config(num_layers=8, switch=switch_config(every=4, extra_dense=True)),
        tiny_config(switch=switch_config(experts_in="attention")),
        tiny_config(activation="geglu", switch=switch_config(expert_widths=((3, 16), (1, 80)))),
        # Of harmonic mean 32 in the place of the mean 40.
        tiny_config(
            switch=switch_config(expert_widths=((3, 48), (1, 16)), balance_by="cost", top_k=2)
        ),
        tiny_config(num_layers=4, switch=switch_config(experts_in="both", extra_dense=True)),
    ],
)


@BUILT
def test_the_formula_counts_what_is_built(config):
    assert parameter_count(config) == Model.of(config).num_params


@BUILT
def test_each_parameters_products_and_those_of_attention_are_all_flops(config):
    found = sum(
        product_flops(config, name, leaf.size, 16, 8)
        for name, leaf in named(Model.of(config).shapes).items()
    )
    lengths = config.encoder.num_layers * 16**2 + config.decoder.num_layers * (8**2 + 16 * 8)
    of_attention = lengths * config.num_heads * config.d_kv
    assert found + 2 * of_attention == forward_flops(config, 16, 8)


@pytest.mark.parametrize(
    ("config", "flops"),
    [
        (t5(12, 768, 2048, 12, 64, gated=True), 124.56e9),
        (t5(24, 1024, 4096, 16, 64), 424.9e9),
        (t5(24, 4096, 10240, 64, 64, True, False), 6260.2e9),
        (t5(15, 2080, 6144, 32, 64, False, False, SwitchConfig(2048, every=1)), 894.0e9),
    ],
)
def test_flops_per_sequence_of_table_9(config, flops):
    assert forward_flops(config, 512, 114) == pytest.approx(flops, rel=1e-3)
    assert train_flops(config, 512, 114) == 3 * forward_flops(config, 512, 114)


def test_experts_do_not_change_flops_but_choices_do():
    dense, switch = tiny_config(switch=None), tiny_config()
    assert forward_flops(switch, 16, 8) == forward_flops(dense, 16, 8)
    extra = forward_flops(with_switch(switch, top_k=2), 16, 8) - forward_flops(switch, 16, 8)
    assert extra == 2 * (16 + 8) * 2 * 16 * 32  # one more feed-forward in one layer of each stack


@pytest.mark.parametrize(("balance_by", "width"), [("tokens", 40), ("cost", 32)])
def test_a_tokens_expert_is_as_wide_as_balance_makes_it(balance_by, width):
    """Equal shares of the tokens give the mean width, shares by 1 / width the harmonic mean."""
    switch = switch_config(expert_widths=((3, 48), (1, 16)), balance_by=balance_by)
    config = tiny_config(d_ff=24, switch=switch)
    more = forward_flops(config, 16, 8) - forward_flops(tiny_config(d_ff=24, switch=None), 16, 8)
    assert more == 2 * (16 + 8) * 2 * 16 * (width - 24)  # in one layer of each stack
    others = 2 * (3 * 48 + 16 - width)
    assert parameters_per_token(config) == parameter_count(config) - 2 * 16 * others


def test_an_extra_dense_feed_forward_costs_one_more():
    plain, extra = tiny_config(), tiny_config(switch=switch_config(extra_dense=True))
    more = forward_flops(extra, 16, 8) - forward_flops(plain, 16, 8)
    assert more == 2 * (16 + 8) * 2 * 16 * 32  # in one layer of each stack


@pytest.mark.parametrize(("choices", "difference"), [(1, -1), (2, 1)])
def test_experts_in_attention_make_two_projections_of_three_for_each_choice(choices, difference):
    plain = tiny_config()
    experts = with_switch(plain, experts_in="attention", top_k=choices)
    more = forward_flops(experts, 16, 8) - forward_flops(plain, 16, 8)
    assert more == difference * 2 * (16 + 8) * 16 * 16  # [d_model, heads * d_kv]


def test_flops_of_st_moe_32b():
    """20.2 T per sequence, the paper says: 6 of 24 layers have three feed-forwards for one."""
    config, _ = PUBLISHED["st-moe 32B"]
    assert forward_flops(config, 512, 114) == pytest.approx(20.2e12, rel=0.006)
