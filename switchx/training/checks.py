"""Whether a run's numbers fit together, before anything is compiled."""

import dataclasses
import math

from jax.sharding import Mesh

from switchx.errors import UserError
from switchx.model import Model, ModelConfig, SwitchConfig
from switchx.model.switch_layer import Grouping, num_groups
from switchx.sharding import batch_shards
from switchx.training import freezing
from switchx.training.config import BatchShape, RunConfig
from switchx.training.teacher import Teacher


def check_run(run: RunConfig, mesh: Mesh) -> None:
    """Raises UserError, naming the numbers to change, where something does not divide."""
    switch = run.model.switch
    _check_schedule(run)
    if run.optimizer.frozen:
        freezing.check(run.optimizer.frozen, Model.of(run.model).shapes)
    taught_by = run.teacher.computed if run.teacher else None
    if mesh.shape["expert"] > 1 and not switch and not (taught_by and taught_by.switch):
        raise UserError(
            f"MESH_EXPERT={mesh.shape['expert']}, but the model has no experts: use MESH_DATA."
        )
    _check_model(run, mesh)
    if run.teacher and taught_by:
        _check_teacher(run, run.teacher, taught_by, mesh)


def _check_model(run: RunConfig, mesh: Mesh) -> None:
    """The mesh must divide its parameters and batches."""
    model = run.model
    _divides("ModelConfig.num_heads", model.num_heads, "MESH_MODEL", mesh.shape["model"])
    _divides("ModelConfig.d_ff", model.d_ff, "MESH_MODEL", mesh.shape["model"])
    _divides("ModelConfig.vocab_size", model.vocab_size, "MESH_MODEL", mesh.shape["model"])
    if model.switch:
        _divides("NUM_EXPERTS", model.switch.num_experts, "MESH_EXPERT", mesh.shape["expert"])
        _check_widths(model.switch, mesh)
        if pools := model.switch.ragged_pools:
            _divides("RAGGED_POOLS", pools, "MESH_EXPERT", mesh.shape["expert"])
    if run.mesh.fully_sharded:
        by = "MESH_DATA x MESH_EXPERT (FULLY_SHARDED splits every matrix along d_model)"
        copies = mesh.shape["data"] * mesh.shape["expert"]
        _divides("ModelConfig.d_model", model.d_model, by, copies)
    _check_batch(run, run.batch, mesh, run.trainer.microbatches, "BATCH_SIZE")
    _check_batch(run, run.eval_batch, mesh, 1, "EVAL_BATCH_SIZE")


def _check_widths(switch: SwitchConfig, mesh: Mesh) -> None:
    """Each device has the same share of the experts of each width, and of their widths."""
    for experts, d_ff in switch.expert_widths or ():
        for what, number, axis in (("experts", experts, "expert"), ("d_ff", d_ff, "model")):
            if number % mesh.shape[axis]:
                raise UserError(
                    f"SwitchConfig.expert_widths={switch.expert_widths!r} has {experts} experts of "
                    f"d_ff {d_ff}: their {what} must be a multiple of "
                    f"MESH_{axis.upper()}={mesh.shape[axis]}."
                )


def _check_teacher(run: RunConfig, teacher: Teacher, model: ModelConfig, mesh: Mesh) -> None:
    """Its model computes the same batches on the same mesh, with its own groups of tokens."""
    named = f"TEACHER={teacher.config.teacher!r}"
    try:
        _check_model(dataclasses.replace(run, model=model, teacher=None), mesh)
    except UserError as error:
        raise UserError(f"{named} has settings of its own, by which {error}") from error


def _check_schedule(run: RunConfig) -> None:
    optimizer, steps = run.optimizer, run.trainer.train_steps
    start = optimizer.decay_start(steps)
    if optimizer.schedule == "wsd" and optimizer.warmup_steps > start:
        raise UserError(
            f"WARMUP_STEPS={optimizer.warmup_steps} lies behind step {start}, where SCHEDULE='wsd' "
            f"begins to decay (DECAY_SHARE={optimizer.decay_share} of TRAIN_STEPS={steps}): warm "
            "up for fewer steps, or train for more."
        )


def check_vocabulary(vocab_size_of_model: int, vocabulary_size: int) -> None:
    """Raises UserError where a vocabulary has ids that the model has no row of its embedding for.

    Such ids would be read from the embedding's last row, in silence.
    """
    if vocabulary_size > vocab_size_of_model:
        raise UserError(
            f"ModelConfig.vocab_size={vocab_size_of_model} is less than the {vocabulary_size} ids "
            "of the task's vocabulary: choose the VOCABULARY that the model was made for, or make "
            f"a model of at least {vocabulary_size} rows."
        )


def _check_batch(
    run: RunConfig, batch: BatchShape, mesh: Mesh, microbatches: int, setting: str
) -> None:
    """The batch must divide over devices and microbatches, in whole groups of tokens."""
    shards = batch_shards(mesh)
    parts = shards * microbatches
    what = f"{_batch_axes(mesh)} = {shards}"
    if microbatches > 1:
        what += f", times MICROBATCHES={microbatches}, = {parts}"
    if batch.batch_size % parts:
        raise UserError(f"{setting}={batch.batch_size} must be a multiple of {what}.")
    switch, stacks = run.model.switch, run.model.stacks
    if switch is None:
        return
    if switch.group_padding == "flaxformer":
        _check_filled(run, batch, shards, what, microbatches)
        return
    rows = batch.batch_size // parts
    of = {
        "encoder": ("inputs", batch.input_length, switch.encoder_group_size),
        "decoder": ("targets", batch.target_length, switch.decoder_group_size),
    }
    for stack, shape in stacks.items():
        feature, length, size = of[stack]
        if shape.num_sparse and rows * length % size:
            multiple = parts * size // math.gcd(size, length)
            raise UserError(
                f"{stack.upper()}_GROUP_SIZE={size} does not divide the {rows * length} tokens "
                f"that {rows} of {setting}={batch.batch_size} sequences x {length} "
                f"(TASK_FEATURE_LENGTHS['{feature}']) give each part ({what}): use a divisor, such "
                f"as {length}, or a {setting} of a multiple of {multiple}."
            )


def _check_filled(
    run: RunConfig, batch: BatchShape, shards: int, what: str, microbatches: int
) -> None:
    """Groups that follow from the batch, as flaxformer makes them, must divide over devices."""
    given = "SwitchConfig.group_padding='flaxformer'"
    if microbatches > 1:
        raise UserError(
            f"MICROBATCHES={microbatches} does not go with {given}, whose groups depend on how "
            "many sequences are computed at a time: leave it at 1."
        )
    lengths = {"encoder": batch.input_length, "decoder": batch.target_length}
    for stack, shape in run.model.stacks.items():
        switch, length = run.model.switch, lengths[stack]
        if switch is None or not shape.num_sparse:
            continue
        whole = Grouping.of(switch, causal=stack == "decoder", train=True)
        own, B, L = whole.of_batch(batch.batch_size, length)
        groups = num_groups(B, L, own.size)
        if groups % shards:
            raise UserError(
                f"{given} makes {groups} groups of {batch.batch_size} sequences of {length} in the "
                f"{stack}, which {what} must divide: use fewer devices, such as MESH_DATA=1."
            )


def _batch_axes(mesh: Mesh) -> str:
    """The settings whose product shares out the batch; MESH_REPLICA only where it is used."""
    replica = "MESH_REPLICA x " if mesh.shape["replica"] > 1 else ""
    return f"{replica}MESH_DATA x MESH_EXPERT"


def _divides(name: str, value: int, by: str, size: int) -> None:
    if value % size:
        raise UserError(f"{name}={value} must be a multiple of {by}={size}.")
