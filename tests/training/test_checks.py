"""Numbers that do not fit together, each with its own sentence."""

import dataclasses
import re

import jax
import pytest

from switchx.errors import UserError
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.checks import check_run
from switchx.training.config import BatchShape, OptimizerConfig, TrainerConfig
from tests.training.helpers import run_config


def refusal(run):
    with pytest.raises(UserError) as caught:
        check_run(run, make_mesh(run.mesh, jax.devices()))
    text = str(caught.value)
    assert "\n" not in text
    return text


def with_switch(run, **changes):
    switch = dataclasses.replace(run.model.switch, **changes)
    return dataclasses.replace(run, model=dataclasses.replace(run.model, switch=switch))


def test_what_fits_passes():
    run = run_config(mesh=MeshConfig(2, 2, 2))
    check_run(run, make_mesh(run.mesh, jax.devices()))


def test_a_batch_that_does_not_divide():
    run = run_config(batch=BatchShape(12, 16, 8))
    assert "BATCH_SIZE=12 must be a multiple of MESH_DATA x MESH_EXPERT = 8" in refusal(run)


def test_an_evaluation_batch_that_does_not_divide():
    run = run_config(eval_batch=BatchShape(4, 16, 8))
    assert "EVAL_BATCH_SIZE=4" in refusal(run)


def test_microbatches_that_do_not_divide():
    assert "MICROBATCHES=4" in refusal(run_config(microbatches=4))


def test_groups_that_do_not_divide_name_the_tokens_there_are():
    text = refusal(with_switch(run_config(), encoder_group_size=64))
    assert "ENCODER_GROUP_SIZE=64" in text
    assert "32 tokens" in text
    assert "DECODER_GROUP_SIZE=5" in refusal(with_switch(run_config(), decoder_group_size=5))


def test_experts_that_do_not_divide():
    run = with_switch(run_config(mesh=MeshConfig(1, 8, 1)), num_experts=12)
    assert "NUM_EXPERTS=12 must be a multiple of MESH_EXPERT=8" in refusal(run)


def test_pools_that_do_not_divide():
    run = run_config(mesh=MeshConfig(1, 8, 1))
    run = with_switch(run, num_experts=16, dispatcher="ragged", ragged_pools=4)
    assert "RAGGED_POOLS=4 must be a multiple of MESH_EXPERT=8" in refusal(run)


def test_widths_that_do_not_divide():
    widths = ((6, 128), (2, 48))
    run = with_switch(run_config(mesh=MeshConfig(2, 4, 1)), expert_widths=widths)
    named = f"SwitchConfig.expert_widths={widths!r} has"
    assert f"{named} 6 experts of d_ff 128: their experts must be a multiple of MESH_EXPERT=4" in (
        refusal(run)
    )
    run = with_switch(run_config(mesh=MeshConfig(1, 1, 8)), expert_widths=((6, 128), (2, 20)))
    assert "2 experts of d_ff 20: their d_ff must be a multiple of MESH_MODEL=8" in refusal(run)


def test_a_width_that_cannot_be_split():
    mesh = MeshConfig(2, 4, 1, fully_sharded=True)
    said = refusal(run_config(mesh=mesh, d_model=132))
    assert "d_model=132 must be a multiple of MESH_DATA x MESH_EXPERT (FULLY_SHARDED" in said


def test_an_expert_axis_without_experts():
    run = run_config(mesh=MeshConfig(1, 8, 1), switch=None)
    assert "no experts" in refusal(run)


def test_heads_that_do_not_divide():
    run = run_config(mesh=MeshConfig(1, 1, 8), num_heads=4)
    assert "num_heads=4 must be a multiple of MESH_MODEL=8" in refusal(run)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TrainerConfig(train_steps=0), "TRAIN_STEPS=0"),
        (lambda: TrainerConfig(train_steps=1, microbatches=1.5), "MICROBATCHES=1.5"),
        (lambda: TrainerConfig(train_steps=1, label_smoothing=1), "LABEL_SMOOTHING=1"),
        (lambda: OptimizerConfig(name="sgd"), "OPTIMIZER='sgd'"),
        (lambda: OptimizerConfig(schedule="step"), "SCHEDULE='step'"),
        (lambda: OptimizerConfig(warmup_steps=0), "WARMUP_STEPS=0"),
        (lambda: OptimizerConfig(learning_rate=-1), "LEARNING_RATE=-1"),
        (lambda: OptimizerConfig(learning_rate=1e300), r"LEARNING_RATE=1e\+300 .* 3.4e\+38, as"),
        (lambda: OptimizerConfig(clip_by_unit=1e-300), "CLIP_BY_UNIT=1e-300 must be from 1.2e-38"),
        (lambda: TrainerConfig(train_steps=1, z_loss=10**40), "Z_LOSS=10+ must be from 1.2e-38"),
        (lambda: OptimizerConfig(weight_decay=1e-300), "WEIGHT_DECAY=1e-300 must be from 1.2e-38"),
        (lambda: OptimizerConfig(beta2=0.9999999999), "beta2=0.9999999999 must .* below 1, as f"),
        (lambda: OptimizerConfig(decay_share=1.0), "DECAY_SHARE=1.0 must be above 0"),
        (
            lambda: TrainerConfig(train_steps=1, checkpoint_steps=(2, 0)),
            re.escape("CHECKPOINT_STEPS=(2, 0) must be whole numbers"),
        ),
    ],
)
def test_settings_out_of_range_are_named(make, name):
    with pytest.raises(UserError, match=name):
        make()


def test_a_warm_up_that_ends_within_the_decay_is_refused():
    allowed = run_config(schedule="wsd", train_steps=100, warmup_steps=90)
    check_run(allowed, make_mesh(allowed.mesh))
    run = run_config(schedule="wsd", train_steps=100, warmup_steps=91)
    assert "WARMUP_STEPS=91 lies behind step 90, where SCHEDULE='wsd'" in refusal(run)
