"""What transformers has no counterpart of is refused by name."""

import dataclasses

import pytest

from switchx.errors import UserError
from switchx.interop.hf_config import check_exportable, read_config, write_config
from switchx.model import SwitchConfig
from tests.helpers import tiny_config, with_switch


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (tiny_config(activation="geglu"), ["ModelConfig.activation='geglu'", "gated experts"]),
        (with_switch(tiny_config(), top_k=2), ["SwitchConfig.top_k=2", "only has 1"]),
        (
            with_switch(tiny_config(num_layers=4), every=4),
            ["SwitchConfig.every=4", "1 and 2 can be exported"],
        ),
    ],
)
def test_refused(config, parts):
    with pytest.raises(UserError) as error:
        check_exportable(config)
    assert all(part in str(error.value) for part in parts), error.value


def test_a_setting_that_is_yet_to_come():
    # Whatever is added to the switch layers has no counterpart until someone says it has.
    later = dataclasses.make_dataclass(
        "Later", [("extra", bool, False)], bases=(SwitchConfig,), frozen=True
    )
    check_exportable(tiny_config(switch=later(num_experts=4)))
    with pytest.raises(UserError, match=r"SwitchConfig\.extra=True"):
        check_exportable(tiny_config(switch=later(num_experts=4, extra=True)))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_a_switch_config_comes_back(every, tied):
    config = with_switch(tiny_config(num_layers=4, tied_embeddings=tied), every=every)
    written = write_config(config, 512, "float32")
    assert written["num_sparse_encoder_layers"] == 4 // every
    assert written["expert_capacity"] == 512
    found = read_config(written, "config.json", own_logits=not tied)
    for name in ("num_layers", "d_ff", "tied_embeddings", "activation", "relative_buckets"):
        assert getattr(found, name) == getattr(config, name)
    assert (found.switch.num_experts, found.switch.every) == (4, every)


def test_a_dense_config_comes_back():
    config = tiny_config(switch=None, activation="geglu", tied_embeddings=False)
    found = read_config(write_config(config, 512, "float32"), "config.json", own_logits=True)
    assert (found.activation, found.tied_embeddings, found.switch) == ("geglu", False, None)


def test_sparse_layers_that_are_only_counted():
    # As in configs before encoder_sparse_step was saved.
    written = write_config(with_switch(tiny_config(num_layers=4)), 512, "float32")
    for stack in ("encoder", "decoder"):
        del written[f"{stack}_sparse_step"]
    assert read_config(written, "config.json", False).switch.every == 2
    written["num_sparse_decoder_layers"] = 0
    with pytest.raises(UserError, match="every 2 and 4 layers"):
        read_config(written, "config.json", False)
