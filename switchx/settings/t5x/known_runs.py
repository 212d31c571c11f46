"""The runs of T5X: t5x/configs/runs/ and t5x/contrib/moe/configs/runs/."""

from switchx.settings.gin_syntax import REQUIRED, Macro, Reference
from switchx.settings.t5x.known_models import Values, named

_TRAIN, _DATASET = "t5x.train.train", "t5x.utils.DatasetConfig"
_PARTITIONER, _TRAINER = "t5x.partitioning.PjitPartitioner", "t5x.trainer.Trainer"
_MOE_PARTITIONER = "t5x.contrib.moe.partitioning.MoePjitPartitioner"
_MOE_TRAINER = "t5x.contrib.moe.trainer.MoeTrainer"
_SCHEDULE = "t5x.utils.create_learning_rate_scheduler"


def run(tuning: bool) -> Values:
    """t5x/configs/runs/pretrain.gin and finetune.gin."""
    needed = ["MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS", "MODEL_DIR"]
    needed += ["INITIAL_CHECKPOINT_PATH"] if tuning else []
    shared = {
        "mixture_or_task_name": Macro("MIXTURE_OR_TASK_NAME"),
        "task_feature_lengths": Macro("TASK_FEATURE_LENGTHS"),
        "batch_size": Macro("BATCH_SIZE"),
        "use_cached": Macro("USE_CACHED_TASKS"),
        "module": Macro("MIXTURE_OR_TASK_MODULE"),
    }
    train: Values = {
        "model": Macro("MODEL"),
        "model_dir": Macro("MODEL_DIR"),
        "checkpoint_cfg": Reference("t5x.utils.CheckpointConfig"),
        "partitioner": Reference(_PARTITIONER),
        "trainer_cls": named(_TRAINER),
        "total_steps": Macro("TRAIN_STEPS"),
        "eval_steps": Macro("EVAL_STEPS") if tuning else 20,
        "eval_period": Macro("EVAL_PERIOD") if tuning else 1000,
        "relative_steps": Macro("TRAIN_STEPS_RELATIVE"),
        "random_seed": Macro("RANDOM_SEED"),
        "use_hardware_rng": Macro("USE_HARDWARE_RNG"),
    }
    values: Values = {
        **dict.fromkeys(needed, REQUIRED),
        "BATCH_SIZE": 128,
        "USE_CACHED_TASKS": True,
        "MIXTURE_OR_TASK_MODULE": None,
        "USE_HARDWARE_RNG": False,
        "RANDOM_SEED": None,
        "TRAIN_STEPS_RELATIVE": None,
        f"{_PARTITIONER}.num_partitions": 1,
        "t5x.utils.CheckpointConfig.restore": Reference("t5x.utils.RestoreCheckpointConfig"),
        "t5x.utils.CheckpointConfig.save": Reference("t5x.utils.SaveCheckpointConfig"),
        "t5x.utils.RestoreCheckpointConfig.path": [],
        "t5x.utils.SaveCheckpointConfig.period": 1000,
        "t5x.utils.SaveCheckpointConfig.keep": None,
        f"{_TRAINER}.num_microbatches": None,
        f"{_TRAINER}.learning_rate_fn": Reference(_SCHEDULE),
        f"{_SCHEDULE}.factors": "constant * rsqrt_decay",
        f"{_SCHEDULE}.base_learning_rate": 1.0,
        f"{_SCHEDULE}.warmup_steps": 10000,
    }
    splits = {"train": "train", "train_eval": "validation", "infer_eval": "validation"}
    for scope, split in splits.items():
        values |= {f"{scope}/{_DATASET}.{name}": value for name, value in shared.items()}
        values[f"{scope}/{_DATASET}.split"] = split
        values[f"{scope}/{_DATASET}.shuffle"] = scope == "train"
        values[f"{scope}/{_DATASET}.seed"] = None if scope == "train" else 42
        values[f"{scope}/{_DATASET}.pack"] = scope != "infer_eval"
        train[f"{scope}_dataset_cfg"] = Reference(_DATASET, scope)
    if tuning:
        values |= {
            "DROPOUT_RATE": 0.1,
            "EVAL_STEPS": 20,
            "EVAL_PERIOD": 1000,
            "EVALUATOR_NUM_EXAMPLES": None,
            "infer_eval/" + f"{_DATASET}.task_feature_lengths": None,
            "seqio.Evaluator.num_examples": Macro("EVALUATOR_NUM_EXAMPLES"),
            "t5x.utils.RestoreCheckpointConfig.path": Macro("INITIAL_CHECKPOINT_PATH"),
            "t5x.utils.RestoreCheckpointConfig.mode": "specific",
            "t5x.utils.SaveCheckpointConfig.period": 5000,
            f"{_SCHEDULE}.factors": "constant",
            f"{_SCHEDULE}.base_learning_rate": 0.001,
            f"{_SCHEDULE}.warmup_steps": 1000,
        }
        train["inference_evaluator_cls"] = named("seqio.Evaluator")
    else:
        values["SHUFFLE_TRAIN_EXAMPLES"] = True
        values[f"train/{_DATASET}.shuffle"] = Macro("SHUFFLE_TRAIN_EXAMPLES")
        train["infer_eval_dataset_cfg"] = None
    return values | {f"{_TRAIN}.{name}": value for name, value in train.items()}


def moe_run(name: str) -> Values:
    """t5x/contrib/moe/configs/runs/{pretrain,continue_pretrain,finetune}.gin."""
    values = run(name == "finetune") | {
        "NUM_MODEL_PARTITIONS": None,
        "MODEL_PARALLEL_SUBMESH": None,
        "NUM_EXPERT_PARTITIONS": Macro("NUM_EXPERTS"),
        f"{_TRAIN}.partitioner": Reference(_MOE_PARTITIONER),
        f"{_MOE_PARTITIONER}.num_expert_partitions": Macro("NUM_EXPERT_PARTITIONS"),
        f"{_MOE_PARTITIONER}.num_partitions": Macro("NUM_MODEL_PARTITIONS"),
        f"{_MOE_PARTITIONER}.model_parallel_submesh": Macro("MODEL_PARALLEL_SUBMESH"),
        f"{_TRAIN}.trainer_cls": named(_MOE_TRAINER),
        f"{_MOE_TRAINER}.num_microbatches": None,
        f"{_MOE_TRAINER}.learning_rate_fn": Reference(_SCHEDULE),
        f"{_MOE_TRAINER}.num_expert_partitions": Macro("NUM_EXPERT_PARTITIONS"),
    }
    if name == "finetune":
        return values | {
            "EXPERT_DROPOUT_RATE": Macro("DROPOUT_RATE"),
            "t5x.utils.SaveCheckpointConfig.period": 2000,
        }
    values |= {
        "t5x.utils.SaveCheckpointConfig.period": 5000,
        "t5x.utils.SaveCheckpointConfig.keep": 20,
    }
    if name == "continue_pretrain":
        values |= {
            "t5x.utils.RestoreCheckpointConfig.mode": "specific",
            "t5x.utils.RestoreCheckpointConfig.path": Macro("INITIAL_CHECKPOINT_PATH"),
        }
    return values
