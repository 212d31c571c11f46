"""The configurations under configs/: every file is read, every published count is met."""

import re
from pathlib import Path

import pytest

from switchx.model import Model, ModelConfig, forward_flops, parameter_count
from switchx.model.router import expert_capacity
from switchx.settings import Request, Settings, load
from switchx.settings.gin_files import HOME, Reader
from switchx.settings.gin_syntax import Binding

CONFIGS = HOME / "configs"
FILES = sorted(path.relative_to(HOME) for path in CONFIGS.glob("**/*.gin"))
MODELS = [path.stem for path in FILES if path.parent.name == "models"]
ABSTRACT = ("switch_base",)  # included by others, which say how many experts

# Of the paper's Table 9, the released models and T5X's T5 files; each agrees with the published,
# rounded number of parameters. The tiny ones are our own.
PARAMETERS = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "switch_base_8": 619_339_008,
    "switch_base_16": 1_072_397_568,
    "switch_base_32": 1_978_514_688,
    "switch_base_64": 3_790_748_928,
    "switch_base_128": 7_415_217_408,
    "switch_base_256": 14_664_154_368,
    "switch_large_128": 26_309_291_008,
    "switch_xxl_128": 394_675_073_024,
    "switch_c_2048": 1_571_375_798_688,
    "switch_c_2048_hf": 786_234_286_080,
    "moe_base": 7_415_217_408,
    "st_moe_base": 700_636_416,
    "st_moe_large": 4_105_432_064,
    "st_moe_32b": 269_104_551_936,
    "tiny_dense": 1_197_824,
    "tiny_switch": 3_034_880,
    "tiny_widths": 3_034_880,
}
# Paper, Table 9, and ST-MoE, in units of 1e9 per sequence of 512 and 114 tokens.
FLOPS = {
    "t5_base": 124,
    "t5_large": 425,
    "t5_1_1_xxl": 6300,
    "switch_base_128": 124,
    "switch_large_128": 425,
    "switch_xxl_128": 6300,
    "switch_c_2048": 890,
    "st_moe_32b": 20_200,
}
RUN = {"MIXTURE_OR_TASK_NAME": "any", "TRAIN_STEPS": 1, "TFDS_DATA_DIR": "/tfds"}
RUN |= {"C4_JSON_TRAIN": "*", "C4_JSON_VALIDATION": "*", "START_FROM": "run"}
# Of inputs and targets, where they are not those of pretraining.
LENGTHS = {
    "quickstart": (64, 14),
    "laptop_experts": (16, 112),
    "laptop_spans": (64, 64),
    "laptop_ul2": (64, 64),
    "finetune_demo": (64, 4),
    "finetune_laptop": (128, 32),
    "finetune_glue": (512, 84),
    "finetune_super_glue": (512, 62),
    "finetune_squad": (512, 97),
    "finetune_cnn_dailymail": (512, 512),
    "finetune_xsum": (2048, 178),
    "finetune_anli": (512, 8),
    "finetune_winogrande": (128, 16),
    "finetune_arc_easy": (256, 64),
    "finetune_arc_challenge": (256, 64),
    "finetune_natural_questions": (128, 32),
    "finetune_web_questions": (128, 32),
    "finetune_trivia_qa": (128, 32),
}
OF_A_TASK = sorted(name for name in LENGTHS if re.match("finetune_(?!demo|laptop)", name))


def settings(*files: str, **macros: object) -> Settings:
    bindings = tuple(Binding(name, value, name) for name, value in macros.items())
    return load(Request(files, bindings), defaults=RUN)


def config(name: str) -> ModelConfig:
    return settings(f"configs/models/{name}.gin").run.model


def test_every_model_has_an_expected_count():
    assert sorted(PARAMETERS) == sorted(set(MODELS) - set(ABSTRACT))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    found = config(name)
    assert Model.of(found).num_params == PARAMETERS[name]
    assert parameter_count(found) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_header_states_the_count(name):
    assert f"{PARAMETERS[name]:,} parameters" in (CONFIGS / f"models/{name}.gin").read_text()


@pytest.mark.parametrize("name", FLOPS)
def test_published_flops(name):
    assert forward_flops(config(name), 512, 114) == pytest.approx(FLOPS[name] * 1e9, rel=0.0065)


def test_tiny_pair_costs_the_same_per_token():
    dense, switch = config("tiny_dense"), config("tiny_switch")
    assert forward_flops(dense, 512, 114) == forward_flops(switch, 512, 114)
    assert dense.switch is None
    assert switch.switch is not None
    assert switch.switch.num_experts == 8


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "switch" in name or "moe" in name])
def test_switch_models(name):
    found = config(name)
    switch = found.switch
    assert switch is not None
    assert (found.init_scale, switch.balance_loss_weight) == (0.1, 1e-2)
    if not name.startswith("st_moe"):
        assert (switch.exploration, switch.jitter) == ("jitter", 1e-2)
    assert found.dropout_rate == 0.0
    # A group holds as many whole sequences of targets as of inputs.
    assert switch.encoder_group_size % 512 == 0
    assert switch.decoder_group_size == switch.encoder_group_size // 512 * 114


@pytest.mark.parametrize(
    ("name", "group", "train", "evaluate", "least"),
    [
        ("switch_base_8", 8192, 1.25, 2.0, 4),
        ("switch_base_256", 8192, 1.25, 2.0, 4),
        ("switch_large_128", 4096, 1.25, 2.0, 4),
        ("switch_xxl_128", 4096, 1.25, 4.0, 2),
        ("switch_c_2048", 2048, 1.0, 2.0, 2),
    ],
)
def test_released_routing(name, group, train, evaluate, least):
    switch = config(name).switch
    assert switch is not None
    assert switch.encoder_group_size == group
    assert (switch.train_capacity_factor, switch.eval_capacity_factor) == (train, evaluate)
    assert switch.min_capacity == least


@pytest.mark.parametrize("name", ["st_moe_base", "st_moe_large", "st_moe_32b"])
def test_the_design_of_st_moe(name):
    found = config(name)
    switch = found.switch
    assert switch is not None
    assert (found.activation, found.tied_embeddings) == ("geglu", False)
    assert (switch.every, switch.extra_dense, switch.exploration) == (4, True, "argmax")
    assert (switch.top_k, switch.second_policy, switch.second_threshold) == (2, "random", 0.2)
    assert switch.priority == "gate"
    assert (switch.balance_loss_weight, switch.router_z_loss_weight) == (1e-2, 1e-3)
    # Published factors are slots per token: 1.25 and 2.0 of a group of 4096 over the experts.
    assert switch.encoder_group_size == 4096
    for train, factor in ((True, 1.25), (False, 2.0)):
        expected = int(factor * 4096 / switch.num_experts)
        assert expert_capacity(switch, 4096, train) == expected


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_read_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Reader().read_file(str(path))


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "runs"])
def test_every_run_works_with_a_model(name):
    found = settings("configs/models/switch_base_8.gin", f"configs/runs/{name}.gin").run
    lengths = LENGTHS.get(name, (512, 114))
    assert (found.batch.input_length, found.batch.target_length) == lengths


def test_the_papers_recipe():
    run = settings("configs/models/switch_base_128.gin", "configs/runs/pretrain_c4.gin").run
    assert run.batch.batch_size * run.batch.input_length == 2**20
    assert run.trainer.train_steps == 550_000
    assert run.optimizer.name == "adafactor"
    assert (run.optimizer.schedule, run.optimizer.warmup_steps) == ("inverse_sqrt", 10_000)


@pytest.mark.parametrize("name", OF_A_TASK)
def test_the_papers_recipe_of_fine_tuning(name):
    found = settings("configs/models/switch_base_128.gin", f"configs/runs/{name}.gin")
    run, task = found.run, found.data.mixture_or_task_name
    assert run.batch.batch_size * run.batch.input_length == 2**20
    assert (run.model.dropout_rate, run.model.switch.expert_dropout_rate) == (0.1, 0.4)
    assert (run.trainer.train_steps, run.trainer.eval_period) == (16_000, 200)
    assert (run.optimizer.schedule, run.optimizer.learning_rate) == ("constant", 1e-3)
    row = rf"^\| `{task}`.*\| {run.batch.input_length}, {run.batch.target_length} \|$"
    if name != "finetune_arc_challenge":  # in the row of arc_easy
        assert re.search(row, (HOME / "docs/finetuning.md").read_text(), re.MULTILINE)


def test_headers_say_what_to_set():
    for path in FILES:
        text = Path(HOME / path).read_text()
        assert text.startswith("# "), path
        assert "# Required to be set" in text, path
        assert "# Commonly overridden" in text, path
