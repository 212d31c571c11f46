"""Which models are trained, with how many seeds, and what the paper says of them."""

import dataclasses
from typing import Any

from switchx.model import ModelConfig, SwitchConfig
from switchx.sharding import MeshConfig
from switchx.training import BatchShape, OptimizerConfig, RunConfig, TrainerConfig

STEPS = 900
EVAL_STEPS = (150, 300, 450, 600, 750, 900)
EVAL_BATCHES = 30
BATCH, INPUT_LENGTH, TARGET_LENGTH = 16, 64, 14
# A small vocabulary: each piece is seen often enough in a few hundred steps to be learned, and
# most of the time goes into the layers that are compared, not into the logits.
PIECES, VOCABULARY_SIZE = 1000, 1152  # the second with the sentinels, rounded up
BASELINE = "switch 8"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model that differs from the baseline (8 experts, top-1, capacity 1.25, jitter, float32).

    Attributes:
      seeds: how many initializations to train.
      experts: 0 is the dense model.
      switch, model, optimizer: what is set otherwise in SwitchConfig, ModelConfig and
        OptimizerConfig.
      bfloat16_router: the router computes in bfloat16, which the package itself never does.
    """

    seeds: int
    experts: int = 8
    switch: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: dict[str, Any] = dataclasses.field(default_factory=dict)
    bfloat16_router: bool = False

    def each_seed(self) -> range:
        """Not from 0: these settings were chosen by runs of seed 0."""
        return range(100, 100 + self.seeds)

    def config(self) -> ModelConfig:
        switch = None
        if self.experts:
            switch = SwitchConfig(**{**_SWITCH, "num_experts": self.experts, **self.switch})
        return ModelConfig(**{**_MODEL, **self.model}, switch=switch)


_SWITCH: dict[str, Any] = dict(
    every=2,
    encoder_group_size=BATCH * INPUT_LENGTH,
    decoder_group_size=BATCH * TARGET_LENGTH,
)
_MODEL: dict[str, Any] = dict(
    vocab_size=VOCABULARY_SIZE,
    d_model=128,
    d_ff=512,
    d_kv=32,
    num_heads=4,
    num_layers=2,
    init_scale=0.1,
    dtype="float32",
)


def _moe(capacity_factor: float) -> dict[str, Any]:
    """Mesh-TensorFlow's top-2."""
    return dict(
        top_k=2,
        second_policy="random",
        train_capacity_factor=capacity_factor,
        eval_capacity_factor=2.0,
    )


VARIANTS: dict[str, Variant] = {
    "dense": Variant(3, experts=0),
    BASELINE: Variant(3),
    "switch 2": Variant(2, experts=2),
    "switch 4": Variant(2, experts=4),
    "switch 8, CF 1.0": Variant(2, switch=dict(train_capacity_factor=1.0)),
    "switch 8, CF 2.0": Variant(2, switch=dict(train_capacity_factor=2.0)),
    "top-2, CF 1.0": Variant(2, switch=_moe(1.0)),
    "top-2, CF 1.25": Variant(2, switch=_moe(1.25)),
    "top-2, CF 2.0": Variant(2, switch=_moe(2.0)),
    "argmax": Variant(2, switch=dict(exploration="argmax")),
    "sample": Variant(2, switch=dict(exploration="sample")),
    "input dropout": Variant(2, switch=dict(exploration="input_dropout")),
    "init 1.0": Variant(3, model=dict(init_scale=1.0)),
    "selective": Variant(2, model=dict(dtype="bfloat16")),
    "bfloat16": Variant(2, model=dict(dtype="bfloat16"), bfloat16_router=True),
}


@dataclasses.dataclass(frozen=True)
class Table:
    """One of the paper's tables: the variants that make it, with the paper's own figures."""

    title: str
    rows: dict[str, tuple[str, str]]  # label here and the paper's figure, by variant
    # (better, worse, what the paper says): by quality after a fixed number of steps
    quality: tuple[tuple[str, str], ...] = ()
    # (faster, slower), by examples per second
    speed: tuple[tuple[str, str], ...] = ()
    equal: tuple[tuple[str, str], ...] = ()


TABLES = (
    Table(
        "Table 2: precision",
        {
            BASELINE: ("float32", "-1.718, 1160 ex/s"),
            "bfloat16": ("bfloat16 throughout", "-3.780 [diverged], 1390 ex/s"),
            "selective": ("selective precision", "-1.716, 1390 ex/s"),
        },
        quality=((BASELINE, "bfloat16"), ("selective", "bfloat16")),
        equal=((BASELINE, "selective"),),
        speed=(("selective", BASELINE), ("bfloat16", BASELINE)),
    ),
    Table(
        "Table 3: initialization scale",
        {BASELINE: ("0.1", "-2.72, spread 0.01"), "init 1.0": ("1.0", "-3.60, spread 0.68")},
        quality=((BASELINE, "init 1.0"),),
    ),
    Table(
        "Table 11: exploration",
        {
            "argmax": ("argmax", "-1.471"),
            "sample": ("sampled softmax", "-1.570"),
            "input dropout": ("input dropout", "-1.480"),
            BASELINE: ("input jitter", "-1.468"),
        },
        quality=(
            (BASELINE, "argmax"),
            ("argmax", "input dropout"),
            ("input dropout", "sample"),
            (BASELINE, "sample"),
        ),
    ),
    Table(
        "Table 1: Switch against top-2",
        {
            "dense": ("dense", "-1.731, 1600 ex/s"),
            "top-2, CF 2.0": ("MoE top-2, capacity 2.0", "-1.547, 840 ex/s"),
            "switch 8, CF 2.0": ("Switch, capacity 2.0", "-1.554, 860 ex/s"),
            "top-2, CF 1.25": ("MoE top-2, capacity 1.25", "-1.559, 790 ex/s"),
            BASELINE: ("Switch, capacity 1.25", "-1.553, 910 ex/s"),
            "top-2, CF 1.0": ("MoE top-2, capacity 1.0", "-1.572, 860 ex/s"),
            "switch 8, CF 1.0": ("Switch, capacity 1.0", "-1.561, 1000 ex/s"),
        },
        quality=(
            (BASELINE, "dense"),
            ("top-2, CF 2.0", "dense"),
            ("top-2, CF 2.0", "switch 8, CF 2.0"),
            (BASELINE, "top-2, CF 1.25"),
            ("switch 8, CF 1.0", "top-2, CF 1.0"),
            ("top-2, CF 2.0", "top-2, CF 1.0"),
            ("switch 8, CF 2.0", "switch 8, CF 1.0"),
        ),
        speed=(
            ("switch 8, CF 2.0", "top-2, CF 2.0"),
            (BASELINE, "top-2, CF 1.25"),
            ("switch 8, CF 1.0", "top-2, CF 1.0"),
            ("switch 8, CF 1.0", BASELINE),
            (BASELINE, "switch 8, CF 2.0"),
            ("dense", "switch 8, CF 1.0"),
        ),
    ),
    Table(
        "Appendix D: few experts, equal FLOPs per token",
        {
            "dense": ("dense", "-1.693"),
            "switch 2": ("2 experts", "-1.683"),
            "switch 4": ("4 experts", "-1.650"),
            BASELINE: ("8 experts", "-1.605"),
        },
        quality=(
            ("switch 2", "dense"),
            ("switch 4", "switch 2"),
            (BASELINE, "switch 4"),
            (BASELINE, "dense"),
        ),
    ),
)


def run_config(variant: Variant, seed: int) -> RunConfig:
    """The run as `switchx train` would be given it.

    Adafactor, but its rate falls to 0: what the last steps' noise does to the loss would
    otherwise hide differences between models.
    """
    shape = BatchShape(BATCH, INPUT_LENGTH, TARGET_LENGTH)
    return RunConfig(
        variant.config(),
        shape,
        shape,
        TrainerConfig(STEPS, seed=seed),
        OptimizerConfig(
            schedule="cosine", learning_rate=0.05, warmup_steps=50, **variant.optimizer
        ),
        MeshConfig(),
    )
