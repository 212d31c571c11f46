"""What takes several of T5X's parameters to say of a model: its layers, experts and mesh."""

import math
from typing import Any

from switchx.settings.gin_syntax import REQUIRED
from switchx.settings.t5x.reading import Reading, are_numbers

_TRAIN = "train.train"


def apply(reading: Reading) -> None:
    """Sets what they come to."""
    _mesh(reading)
    _layers(reading)
    _experts(reading)
    _remat(reading)


def _mesh(reading: Reading) -> None:
    """How many devices share a parameter, and how many the experts; the rest share the batch."""
    for name in ("PjitPartitioner", "MoePjitPartitioner"):
        size, tile = (
            reading.use(f"{name}.{part}") for part in ("num_partitions", "model_parallel_submesh")
        )
        if tile is not None and tile.value:
            whole = isinstance(tile.value, list | tuple) and are_numbers(*tile.value)
            reading.put("MESH_MODEL", math.prod(tile.value) if whole else tile.value, tile)
        elif size is not None and size.value:
            reading.put("MESH_MODEL", size.value, size)
    dims = reading.use("standard_logical_axis_rules.parameter_partitioning_dims")
    if dims is not None and dims.value == 2:
        reading.put("FULLY_SHARDED", True, dims)
    experts = reading.use("MoePjitPartitioner.num_expert_partitions")
    if experts is None or experts.value in (None, REQUIRED):
        return
    if experts.value == reading.value("MoeLayer.num_experts"):
        reading.note(
            experts, "as many devices as there are share the experts: MESH_EXPERT and MESH_DATA"
        )
        reading.put("MESH_EXPERT", -1, experts)
        reading.put("MESH_DATA", 1, experts)
    else:
        reading.put("MESH_EXPERT", experts.value, experts)


def _layers(reading: Reading) -> None:
    """Depths, and which layers have experts."""
    layers = reading.use("T5Config.num_encoder_layers") or _of_stack(reading, "encoder")
    decoder = reading.use("T5Config.num_decoder_layers") or _of_stack(reading, "decoder")
    if layers is None or decoder is None:
        return
    reading.put("ModelConfig.num_layers", layers.value, layers)
    if decoder.value != layers.value:
        reading.put("ModelConfig.num_decoder_layers", decoder.value, decoder)
    if not reading.built("MoeLayer"):
        return
    sparse = {stack: _sparse_layers(reading, stack) for stack in ("encoder", "decoder")}
    if sparse["encoder"] == sparse["decoder"] and isinstance(sparse["encoder"], int):
        use = reading.use("SparseEncoder.num_sparse_layers")
        reading.put("SwitchConfig.every", sparse["encoder"], use)
        return
    for stack, which in sparse.items():
        use = reading.use(f"Sparse{stack.capitalize()}.num_sparse_layers")
        reading.put(f"SwitchConfig.{stack}_sparse", which, use)


def _of_stack(reading: Reading, stack: str) -> Any:
    return reading.use("coder.num_layers", f"{stack}_factory")


def _sparse_layers(reading: Reading, stack: str) -> Any:
    """Every n-th, or the numbers of the sparse layers, from T5X's layouts."""
    name = f"Sparse{stack.capitalize()}"
    sparse, layout = (
        reading.value(f"{name}.{part}") for part in ("num_sparse_layers", "sparse_layout")
    )
    use = _of_stack(reading, stack)
    total = use.value if use is not None else None
    if not isinstance(sparse, int) or not isinstance(total, int) or sparse <= 0:
        return ()
    layout = str(layout).lower()
    if layout == "mixed":
        if total % sparse:
            reading.refuse(
                reading.use(f"{name}.num_sparse_layers"), f"it does not divide the {total} layers"
            )
        return total // sparse
    if layout == "bottom":
        return tuple(range(sparse))
    if layout == "top":
        return tuple(range(total - sparse, total))
    return tuple(i for i in range(total) if total - sparse <= 2 * i < total + sparse)


def _experts(reading: Reading) -> None:
    """Routers and their losses."""
    if not reading.built("MoeLayer"):
        return
    for stack in ("encoder", "decoder"):
        size = reading.use("MoeLayer.max_group_size", f"{stack}_factory")
        if size is not None:
            reading.put(f"{stack.upper()}_GROUP_SIZE", size.value, size)
        extra = reading.use("extra_mlp", f"{stack}_factory")
        if extra is not None and extra.value is not None:
            reading.put("SwitchConfig.extra_dense", True, extra)
    first = reading.use("batch_prioritized_routing", "encoder_factory")
    if first is not None:
        reading.put("SwitchConfig.priority", "gate" if first.value else "sequence", first)
    later = reading.use("batch_prioritized_routing", "decoder_factory")
    if later is not None and later.value:
        reading.refuse(later, "a decoder's tokens go by their order: later ones are not known")
    for padding in reading.all_uses("ignore_padding_tokens"):
        if padding.value is True:
            reading.refuse(
                padding,
                "groups are made as flaxformer makes them, where padding is routed: set "
                "SwitchConfig.group_padding='none' for switchx's own, where it is not",
                "SwitchConfig.group_padding",
            )
    _router_losses(reading)
    _router_init(reading)


def _router_losses(reading: Reading) -> None:
    """T5X averages them over sparse layers, switchx sums them."""
    count = 0
    for stack in ("encoder", "decoder"):
        sparse = reading.value(f"Sparse{stack.capitalize()}.num_sparse_layers")
        count += sparse if isinstance(sparse, int) else 0
    for name, ours in {
        "aux_loss_factor": "SwitchConfig.balance_loss_weight",
        "router_z_loss_factor": "SwitchConfig.router_z_loss_weight",
    }.items():
        use = reading.use(f"MoeEncoderDecoderModel.{name}")
        if use is None or not isinstance(use.value, int | float):
            continue
        reading.put(ours, use.value / max(count, 1), use)
        if use.value:
            reading.note(
                use,
                f"T5X takes the mean over {count} sparse layers, switchx the sum: {ours} is "
                f"{use.value / max(count, 1):.4g}",
            )


def _router_init(reading: Reading) -> None:
    """A router's initial values, normal with a standard deviation; here sqrt(scale / d_model)."""
    widths = reading.chosen.get("ModelConfig.d_model")
    for use in reading.all_uses("normal.stddev", "router_weights"):
        if use.path[-1] == "kernel_init" and widths and are_numbers(widths.value, use.value):
            scale = round(use.value**2 * widths.value, 12)
            reading.put("SwitchConfig.router_init_scale", scale, use)


def _remat(reading: Reading) -> None:
    """What the backward pass computes again; it changes no result."""
    for use in [*reading.all_uses("layer_remat"), *reading.all_uses("T5Config.remat_policy")]:
        known = {"none": "none", "full": "full", "minimal": "dots"}
        found = known.get(str(use.value).lower())
        if found is not None:
            reading.put("REMAT", found, use)
        elif str(use.value).lower() != "legacy":
            reading.note(use, "REMAT says what is computed again")
