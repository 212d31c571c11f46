"""The table from T5X's configurables to ours: what each of their parameters is here.

By their full names in google-research/t5x and google/flaxformer; the defaults are those that their
sources have. A configurable without a row is refused by name, as is a parameter without one. What
takes several parameters to say is in `rules`. docs/from_t5x.md has the same in words.
"""

from typing import Any

from switchx.settings.gin_syntax import Reference
from switchx.settings.t5x import values
from switchx.settings.t5x.rows import QUIET, Row, aside, by_rule, only, quiet, same

_ORDER = "the order of examples is switchx's own, drawn from SEED"
_INITIAL = "initial values are drawn with switchx's own scales"
_LAYERS = "every layer of a stack shares one bias of relative positions, T5's"
_DATASET: dict[str, Row] = {
    "use_cached": aside(
        "tasks are read as seqio registers them; PREPARED_DIR takes the place", False
    ),
    **quiet(
        "use_custom_packing_ops use_memory_cache num_prefetch_threads num_workers "
        "trim_output_features"
    ),
    "runtime_preprocessors": only(None, (), [], why="a task's own preprocessors are all there are"),
    "module": same("MIXTURE_OR_TASK_MODULE"),
}

# By configurable, then by parameter. "@": what its being used says.
TABLE: dict[str, dict[str, Any]] = {
    # ---- the run ----
    "t5x.train.train": {
        "model": QUIET,
        "model_dir": same("MODEL_DIR"),
        **quiet("train_dataset_cfg train_eval_dataset_cfg"),
        "infer_eval_dataset_cfg": by_rule(),
        **quiet("checkpoint_cfg partitioner trainer_cls"),
        "total_steps": by_rule(),
        "relative_steps": by_rule(),
        "eval_steps": same("EVAL_STEPS"),
        "eval_period": same("EVAL_PERIOD"),
        "stats_period": by_rule(),
        "random_seed": by_rule(),
        "use_hardware_rng": aside("random numbers are threefry's, on every device", False),
        **quiet("summarize_config_fn inference_evaluator_cls"),
        "get_dataset_fn": aside("data is read by switchx's own pipeline"),
        "train_eval_get_dataset_fn": aside("data is read by switchx's own pipeline"),
        "concurrent_metrics": QUIET,
        "actions": aside("ON_BAD_LOSS says what becomes of a loss that is not finite", None, {}),
        "run_eval_before_training": aside("evaluations begin after EVAL_PERIOD steps", False),
        "train_state_initializer_cls": only(why="parameters begin as START_FROM says"),
        **quiet("use_orbax use_jax_array use_gda"),
        "verify_matching_vocabs_fn": aside(
            "vocabulary and model are compared at every start", None
        ),
        "gc_period": QUIET,
    },
    "t5x.gin_utils.summarize_gin_config": {},
    "t5x.utils.get_training_eval_datasets": {"deterministic": QUIET},
    "t5x.trainer.TerminateOnNanAction": {"task": QUIET},
    # ---- data, by its part in the run ----
    "t5x.utils.DatasetConfig in train_dataset_cfg": {
        **_DATASET,
        "mixture_or_task_name": same("MIXTURE_OR_TASK_NAME", of=values.mixture),
        "task_feature_lengths": same("TASK_FEATURE_LENGTHS"),
        "split": only("train", why="training reads the split 'train'"),
        "batch_size": same("BATCH_SIZE"),
        "shuffle": aside(_ORDER, True),
        "seed": by_rule(),
        "pack": same("PACK", False),
    },
    "t5x.utils.DatasetConfig in train_eval_dataset_cfg": {
        **_DATASET,
        "mixture_or_task_name": by_rule(),
        "task_feature_lengths": by_rule(),
        "split": aside("the validation split is evaluated", "validation"),
        "batch_size": by_rule(),
        **quiet("shuffle seed"),
        "pack": by_rule(False),
    },
    "t5x.utils.DatasetConfig in infer_eval_dataset_cfg": {
        **_DATASET,
        "mixture_or_task_name": by_rule(),
        "task_feature_lengths": aside("answers are as long as TASK_FEATURE_LENGTHS", None),
        "split": aside("the validation split is scored", "validation"),
        **quiet("batch_size shuffle seed pack"),
    },
    "seqio.Evaluator": {
        "num_examples": same("SCORE_EXAMPLES"),
        **quiet("logger_cls use_memory_cache"),
    },
    "seqio.PyLoggingLogger": {},
    "seqio.TensorBoardLogger": {},
    "seqio.JSONLogger": {"write_n_results": QUIET},
    "seqio.SentencePieceVocabulary": {
        "sentencepiece_model_file": same("VOCABULARY", of=values.pieces),
        "extra_ids": only(
            None, 0, 100, why="sentinels are those of the model, or 100", ours="VOCABULARY"
        ),
    },
    "seqio.ByteVocabulary": {"@": {"VOCABULARY": "bytes"}, "extra_ids": QUIET},
    # ---- checkpoints ----
    "t5x.utils.CheckpointConfig": {"save": by_rule(), "restore": QUIET},
    "t5x.utils.SaveCheckpointConfig": {
        "period": by_rule(),
        "keep": by_rule(None),
        "checkpoint_steps": by_rule(None),
        "dtype": aside("parameters are saved as they are, in float32", "float32"),
        "save_dataset": aside("the data always goes on at its next example", False, True),
        **quiet("keep_dataset_checkpoints checkpointer_cls checkpoint_manager_cls"),
        "state_transformation_fns": aside("a checkpoint is the state as it is", (), []),
    },
    "t5x.utils.RestoreCheckpointConfig": {
        "path": by_rule(),
        "mode": by_rule("latest"),
        "dtype": aside("parameters are float32", "float32", None),
        "strict": QUIET,
        "restore_dataset": aside("another run's position in its data is not taken", False),
        "fallback_to_scratch": only(
            False, why="START_FROM takes all parameters but those that START_FRESH names"
        ),
        "assignment_map": only(
            None, (), [], why="parameters keep their names: START_FRESH names new ones"
        ),
        "state_transformation_fns": only(
            (), [], why="parameters keep their names: START_FRESH names new ones"
        ),
        "checkpointer_cls": only(
            why="`switchx import` and `switchx upcycle` bring in what is not a run's"
        ),
        "checkpoint_manager_cls": QUIET,
    },
    # ---- optimizer ----
    "t5x.trainer.Trainer": {
        "num_microbatches": same("MICROBATCHES", None, values.microbatches),
        "learning_rate_fn": by_rule(),
        "weight_metrics_computer": QUIET,
    },
    "t5x.contrib.moe.trainer.MoeTrainer": {
        "num_microbatches": same("MICROBATCHES", None, values.microbatches),
        "learning_rate_fn": by_rule(),
        **quiet("num_expert_partitions weight_metrics_computer sharded_match_fn"),
    },
    "t5x.trainer.WeightMetricsComputer": {},
    "t5x.utils.create_learning_rate_scheduler": {
        "factors": by_rule("constant * linear_warmup * rsqrt_decay"),
        "base_learning_rate": by_rule(0.5),
        "warmup_steps": by_rule(1000),
        **quiet("decay_factor steps_per_decay steps_per_cycle"),
        "step_offset": by_rule(0),
        "min_learning_rate": QUIET,
    },
    "t5x.adafactor.Adafactor": {
        "@": {"OPTIMIZER": "adafactor"},
        "learning_rate": QUIET,  # the trainer gives it
        "beta1": same("OptimizerConfig.momentum", None, values.zero),
        "weight_decay_rate": same("WEIGHT_DECAY", None, values.zero),
        "global_norm_clip_threshold": same("CLIP_GLOBAL_NORM", None),
        "decay_rate": only(0.8, why="second moments decay as 1 - step^-0.8"),
        "step_offset": only(0, why="second moments count this run's own updates"),
        "factored": only(True, why="second moments are factored"),
        "multiply_by_parameter_scale": only(True, why="steps are relative to a parameter's RMS"),
        "clipping_threshold": only(1.0, why="updates are clipped to an RMS of 1"),
        "min_dim_size_to_factor": only(128, why="matrices are factored from 128 rows on"),
        "epsilon1": only(1e-30, why="it is 1e-30"),
        "epsilon2": only(1e-3, why="it is 1e-3"),
        "dtype_momentum": aside("optimizer state is float32", "float32"),
        "factor_map": aside("matrices are factored per layer and expert"),
        "logical_factor_rules": QUIET,
        "weight_decay_rate_lr_exponent": only(
            None, why="Adafactor's weight decay is not scaled by the learning rate"
        ),
        "max_parameter_scale": only(None, why="a parameter's RMS has no upper bound"),
        "skip_nan_updates": aside("ON_BAD_LOSS says what becomes of a bad step", False),
    },
    "t5x.adafactor.standard_logical_factor_rules": {},
    "t5x.adafactor.standard_factor_rules": {"scan_layers": QUIET},
    "t5x.adafactor.HParamMap": {"rules": QUIET},
    "t5x.contrib.moe.adafactor_utils.logical_factor_rules": {},
    "t5x.optimizers.chain": {"transformations": QUIET},
    "optax.clip_by_global_norm": {"max_norm": same("CLIP_GLOBAL_NORM")},
    "optax.adamw": {
        "@": {"OPTIMIZER": "adamw"},
        "learning_rate": by_rule(),
        "b1": same("OptimizerConfig.beta1", 0.9),
        "b2": same("OptimizerConfig.beta2", 0.999),
        "weight_decay": same("WEIGHT_DECAY", 0.0001),
        "eps": only(1e-8, why="it is 1e-8"),
        "eps_root": only(0.0, why="it is 0"),
    },
    "optax.warmup_cosine_decay_schedule": {
        "init_value": only(0.0, why="a rate rises from 0"),
        "end_value": only(0.0, why="SCHEDULE='cosine' falls to 0"),
        "peak_value": same("LEARNING_RATE"),
        "warmup_steps": same("WARMUP_STEPS"),
        "decay_steps": by_rule(),
        "exponent": only(1.0, why="SCHEDULE='cosine' has none"),
    },
    # ---- mesh ----
    "t5x.partitioning.PjitPartitioner": {
        "num_partitions": by_rule(),
        "model_parallel_submesh": by_rule(),
        **quiet("logical_axis_rules params_on_devices backend"),
        "ici_mesh_shape": aside("MESH_DATA, MESH_EXPERT and MESH_MODEL say it", None),
        "dcn_mesh_shape": aside("MESH_REPLICA says it", None),
        "use_explicit_sharding": QUIET,
    },
    "t5x.contrib.moe.partitioning.MoePjitPartitioner": {
        "num_expert_partitions": by_rule(),
        "num_partitions": by_rule(),
        "model_parallel_submesh": by_rule(),
        **quiet("logical_axis_rules params_on_devices state_filter_fn"),
    },
    "t5x.contrib.moe.partitioning.standard_logical_axis_rules": {
        "activation_partitioning_dims": QUIET,
        "parameter_partitioning_dims": by_rule(),
        "additional_rules": aside("results are the same on every mesh", None, (), []),
    },
    "t5x.partitioning.standard_logical_axis_rules": {
        "activation_partitioning_dims": QUIET,
        "parameter_partitioning_dims": by_rule(),
        "additional_rules": aside("results are the same on every mesh", None, (), []),
    },
    "t5x.contrib.moe.partitioning.compute_num_model_partitions": {
        **quiet("num_model_partitions model_parallel_submesh"),
    },
    # ---- objective ----
    "t5x.models.EncoderDecoderModel": {
        **quiet("module input_vocabulary output_vocabulary optimizer_def"),
        "z_loss": same("Z_LOSS", 0.0),
        "label_smoothing": same("LABEL_SMOOTHING", 0.0),
        "loss_normalizing_factor": by_rule(None),
        "decode_fn": QUIET,
        "feature_converter_cls": only(None, why="examples are inputs and targets, T5's"),
        "default_decoder_params": QUIET,
    },
    "t5x.models.EncoderDecoderModel.predict_batch_with_aux": {
        "num_decodes": by_rule(1),
        **quiet("return_all_decodes decoder_params prompt_with_targets"),
    },
    "t5x.decoding.beam_search": {"alpha": same("LENGTH_PENALTY", 0.6)},
    "t5x.decoding.temperature_sample": {
        name: aside("DECODING_METHOD says how answers are found")
        for name in ("temperature", "topk", "topp")
    },
    # ---- T5X's own network ----
    "t5x.examples.t5.network.Transformer": {"config": QUIET},
    "t5x.examples.t5.network.T5Config": {
        "@": {"ModelConfig.switch": None},
        "vocab_size": same("ModelConfig.vocab_size"),
        "dtype": same("DTYPE", "float32", values.dtype),
        "emb_dim": same("ModelConfig.d_model", 512),
        "num_heads": same("ModelConfig.num_heads", 8),
        "num_encoder_layers": same("ModelConfig.num_layers", 6),
        "num_decoder_layers": by_rule(6),
        "head_dim": same("ModelConfig.d_kv", 64),
        "mlp_dim": same("ModelConfig.d_ff", 2048),
        "mlp_activations": same("ModelConfig.activation", ("relu",), values.activation),
        "dropout_rate": same("DROPOUT_RATE", 0.1),
        "logits_via_embedding": same("ModelConfig.tied_embeddings", False),
        "float32_attention_logits": aside("attention's softmax is in float32", False, True),
    },
    # ---- flaxformer ----
    "flaxformer.architectures.t5.t5_architecture.EncoderDecoder": {
        **quiet("encoder_factory decoder_factory"),
        "shared_token_embedder_factory": only(
            Reference("flaxformer.components.embedding.Embed", called=False),
            why="encoder and decoder share one embedding",
        ),
        "dtype": same("DTYPE", "float32", values.dtype),
        **quiet("scan_layers spmd_annotations"),
    },
    "flaxformer.components.embedding.Embed": {
        "num_embeddings": same("ModelConfig.vocab_size"),
        "features": same("ModelConfig.d_model"),
        **quiet("cast_input_dtype dtype attend_dtype embedding_init one_hot name"),
    },
    "flaxformer.components.layer_norm.T5LayerNorm": {"dtype": QUIET},
    "flax.linen.Dropout": {"rate": same("DROPOUT_RATE"), "broadcast_dims": QUIET},
    "flaxformer.components.attention.dense_attention.MultiHeadDotProductAttention": {
        "num_heads": same("ModelConfig.num_heads"),
        "head_dim": same("ModelConfig.d_kv"),
        "dropout_rate": same("DROPOUT_RATE"),
        "use_bias": only(False, why="there are no biases"),
        **quiet("dtype kernel_init bias_init broadcast_dropout"),
    },
    "flaxformer.components.relative_position_biases.RelativePositionBiases": {
        "num_heads": same("ModelConfig.num_heads"),
        "num_buckets": same("ModelConfig.relative_buckets"),
        "max_distance": same("ModelConfig.relative_max_distance"),
        **quiet("dtype embedding_init"),
    },
    "flaxformer.components.dense.MlpBlock": {
        "intermediate_dim": same("ModelConfig.d_ff", 2048),
        "activations": same("ModelConfig.activation", ("relu",), values.activation),
        "intermediate_dropout_rate": same("DROPOUT_RATE", 0.1),
        "final_dropout_rate": only(0, 0.0, why="a feed-forward's output has the block's dropout"),
        "use_bias": only(False, why="there are no biases"),
        **quiet(
            "kernel_init bias_init dtype input_axis_name intermediate_axis_name "
            "output_axis_name data_sharding_constraints activation_partitioning_dims "
            "fuse_kernels"
        ),
        "out_dim": only(None, why="a feed-forward goes back to d_model"),
    },
    "flaxformer.components.dense.MlpBlock in expert": {
        "intermediate_dropout_rate": same("EXPERT_DROPOUT_RATE", 0.1),
    },
    "flaxformer.components.dense.DenseGeneral": {
        "features": same("ModelConfig.vocab_size"),
        "use_bias": only(False, why="there are no biases"),
        **quiet("dtype kernel_init bias_init kernel_axis_names"),
    },
    "flax.linen.initializers.variance_scaling": {
        **quiet("scale mode distribution"),
    },
    "flax.linen.initializers.variance_scaling in mlp": {"scale": same("ModelConfig.init_scale")},
    "flax.linen.initializers.variance_scaling in attention": {"scale": aside(_INITIAL, 1.0)},
    "flax.linen.initializers.variance_scaling in self_attention": {"scale": aside(_INITIAL, 1.0)},
    "flax.linen.initializers.variance_scaling in encoder_decoder_attention": {
        "scale": aside(_INITIAL, 1.0)
    },
    "flax.linen.initializers.normal": {"stddev": QUIET},
    "flax.linen.initializers.normal in router_weights": {"stddev": by_rule()},
    "flaxformer.architectures.moe.moe_layers.MoeLayer": {
        "@": {
            "ModelConfig.switch": Reference("SwitchConfig"),
            # As there, padding is routed, and a batch filled up to a multiple of the experts.
            "SwitchConfig.group_padding": "flaxformer",
        },
        "num_experts": same("NUM_EXPERTS"),
        "max_group_size": by_rule(),
        "train_capacity_factor": same("TRAIN_CAPACITY_FACTOR"),
        "eval_capacity_factor": same("EVAL_CAPACITY_FACTOR"),
        "min_expert_capacity": same("SwitchConfig.min_capacity", 4),
        **quiet("expert router num_expert_partitions num_model_partitions"),
        "dropout_rate": QUIET,  # flaxformer reads it nowhere
        **quiet(
            "dtype split_params optimize_model_parallel_communications strict_group_size "
            "input_hidden_dims_axes output_hidden_dims_axes"
        ),
    },
    "flaxformer.architectures.moe.routing.RouterWeights": {
        "use_bias": only(False, why="routers have no biases"),
        "dtype": aside("routers compute in float32", "float32"),
        **quiet("kernel_init bias_init"),
    },
}

_T5 = "flaxformer.architectures.t5.t5_architecture"
_MOE = "flaxformer.architectures.moe.moe_architecture"
_ROUTING = "flaxformer.architectures.moe.routing"
_LAYER: dict[str, Row] = {
    **quiet(
        "attention self_attention encoder_decoder_attention mlp dropout_factory "
        "layer_norm_factory activation_partitioning_dims scanned sow_intermediates"
    ),
    "parallel": only(False, why="attention and feed-forward follow each other"),
    "relative_position_bias_factory": only(None, why=_LAYERS),
}
_STACK: dict[str, Row] = {
    "num_layers": by_rule(),
    **quiet(
        "layer_factory dropout_factory input_dropout_factory output_dropout_factory "
        "layer_norm_factory"
    ),
    "position_embedder_factory": only(None, why="positions are relative, T5's"),
    "shared_relative_position_bias_factory": only(
        Reference(
            "flaxformer.components.relative_position_biases.RelativePositionBiases", called=False
        ),
        why=_LAYERS,
    ),
    "dtype": QUIET,
    "layer_remat": by_rule(),
    **quiet("scan_layers scan_axis sow_intermediates capture_gradients"),
}
_SPARSE = {
    "num_sparse_layers": by_rule(0),
    "sparse_layout": by_rule("MIXED"),
    "sparse_layer_factory": QUIET,
}
_LOGITS = {"output_logits_factory": same("ModelConfig.tied_embeddings", None, values.tied)}
_ROUTER: dict[str, Any] = {
    "router_weights": QUIET,
    "jitter_noise": same("SwitchConfig.jitter"),
    "dtype": QUIET,
    "ignore_padding_tokens": by_rule(),
}
_TOKENS_CHOOSE = {
    **_ROUTER,
    "num_selected_experts": only(
        1,
        why="of several experts' gates switchx divides each by their sum, flaxformer none",
        ours="SwitchConfig.top_k",
    ),
    "batch_prioritized_routing": by_rule(),
}
TABLE |= {
    f"{_T5}.EncoderLayer": _LAYER,
    f"{_T5}.DecoderLayer": _LAYER,
    f"{_MOE}.SparseEncoderLayer": {**_LAYER, "extra_mlp": by_rule()},
    f"{_MOE}.SparseDecoderLayer": {**_LAYER, "extra_mlp": by_rule()},
    f"{_T5}.Encoder": {"@": {"ModelConfig.switch": None}, **_STACK},
    f"{_T5}.Decoder": {**_STACK, **_LOGITS},
    f"{_MOE}.SparseEncoder": {**_STACK, **_SPARSE},
    f"{_MOE}.SparseDecoder": {**_STACK, **_SPARSE, **_LOGITS},
    f"{_ROUTING}.TokensChooseMaskedRouter": _TOKENS_CHOOSE,
    f"{_ROUTING}.TokensChooseScatterRouter": _TOKENS_CHOOSE,
    f"{_ROUTING}.ExpertsChooseMaskedRouter": {
        **_ROUTER,
        "@": {"SwitchConfig.encoder_routing": "experts_choose"},
    },
}
# The moe model is the other with two losses more.
TABLE["t5x.contrib.moe.models.MoeEncoderDecoderModel"] = {
    **TABLE["t5x.models.EncoderDecoderModel"],
    "aux_loss_factor": by_rule(0.0),
    "router_z_loss_factor": by_rule(0.0),
}
TABLE["t5x.contrib.moe.models.MoeEncoderDecoderModel.predict_batch_with_aux"] = TABLE[
    "t5x.models.EncoderDecoderModel.predict_batch_with_aux"
]

# The other network of T5X is scanned, and has a bias of relative positions in each layer.
_NETWORK, _SCALABLE = "t5x.examples.t5.network", "t5x.examples.scalable_t5.network"
TABLE[f"{_SCALABLE}.Transformer"] = TABLE[f"{_NETWORK}.Transformer"]
TABLE[f"{_SCALABLE}.T5Config"] = {
    **TABLE[f"{_NETWORK}.T5Config"],
    "@": {"ModelConfig.switch": None, "ModelConfig.bias_per_layer": True},
    "remat_policy": by_rule("none"),
    "scan_layers": same("ModelConfig.scan", True),
    "param_scan_axis": QUIET,
}


def row_of(name: str, parameter: str, path: tuple[str, ...]) -> Row | None:
    """The row of a parameter, which may depend on the part of the whole it is in.

    Args:
      path: the parameters that led to the configurable, the nearest last.
    """
    for part in reversed(path):
        found = TABLE.get(f"{name} in {part}", {}).get(parameter)
        if found is not None:
            return found
    return TABLE.get(name, {}).get(parameter)


def parameters_of(name: str) -> dict[str, Any]:
    """All parameters of a configurable, wherever it stands; {} for an unknown one."""
    found: dict[str, Any] = {}
    for key, rows in TABLE.items():
        if key.partition(" in ")[0] == name:
            found |= {parameter: row for parameter, row in rows.items() if parameter not in found}
    return found


NAMES = sorted({key.partition(" in ")[0] for key in TABLE})
