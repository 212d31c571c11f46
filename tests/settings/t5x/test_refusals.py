"""What has no equal is said with its file and line, all of it in one refusal."""

import pytest

from switchx.errors import UserError
from switchx.settings.configurables import PARAMETERS
from switchx.settings.gin_files import Reader
from switchx.settings.gin_values import BASE
from switchx.settings.t5x.no_equal import NONE_HERE
from switchx.settings.t5x.table import TABLE
from tests.settings.t5x.test_reading import PRETRAIN, SWITCH
from tests.settings.test_loading import settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(tmp_path, text, *flags):
    (tmp_path / "their.gin").write_text(text)
    with pytest.raises(UserError) as caught:
        settings("--gin_file=their.gin", *flags)
    return str(caught.value)


def test_all_at_once(tmp_path):
    more = """
from t5x import adafactor
from t5x.examples.t5 import network
import optax
adafactor.Adafactor.factored = False
network.T5Config.mlp_activations = ('tanh', 'linear')
network.T5Config.emb_dm = 8
utils.create_learning_rate_scheduler.factors = 'constant * decay_every'
train/utils.DatasetConfig.split = 'train[:10%]'
utils.SaveCheckpointConfg.period = 5
LOSS_NORMALIZING_FACTOR = 'AVERAGE_PER_SEQUENCE'
include 'gone.gin'
"""
    said = refusal(tmp_path, PRETRAIN + more).split("\n")
    first = PRETRAIN.count("\n") + 1
    wanted = {
        4: "adafactor.Adafactor.factored=False: second moments are factored.",
        5: "network.T5Config.mlp_activations=('tanh', 'linear'): feed-forwards are one of",
        6: "network.T5Config.emb_dm is not known here: the nearest name is emb_dim.",
        7: "factors='constant * decay_every': SCHEDULE has",
        8: "utils.DatasetConfig.split='train[:10%]': training reads the split 'train'.",
        9: "there is no 't5x.utils.SaveCheckpointConfg' here: the nearest name is utils.SaveCheck",
        10: "loss_normalizing_factor='AVERAGE_PER_SEQUENCE': the loss is the mean over",
    }
    assert said[0] == f"{len(wanted) + 1} settings of T5X's files cannot be taken:"
    for line, words in wanted.items():
        place = f"  their.gin line {first + line}: "
        assert any(s.startswith(place) and words in s for s in said), (place, words, said)
    assert any("include 'gone.gin' (their.gin line" in s and "was not found" in s for s in said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("include 't5x/examples/decoder_only/models/base.gin'", "a decoder alone"),
        ("include 'flaxformer/t5x/configs/calm/models/calm_t5_1_1_base.gin'", "CALM's early exits"),
        (
            "include 't5x/examples/t5/t5_1_1/examples/mine.gin'",
            "a checkout with --gin_search_paths",
        ),
        (
            "import __main__ as eval_script\neval_script.evaluate.output_dir = 'x'",
            "`switchx eval` takes a run's directory",
        ),
        (
            "from t5x import models\nMODEL = @models.DecoderOnlyModel()",
            "their.gin line 2: train_script.train.model=@t5x.models.DecoderOnlyModel(): this is a "
            "decoder alone",
        ),
        (
            "from t5x.contrib.calm import models\nMODEL = @models.EncoderDecoderModel()",
            "CALM's early exits",
        ),
        ("include 'their.gin'", "include 'their.gin' (their.gin line 1) includes itself."),
        ("include 'between.gin'", "includes itself by way of between.gin."),
        ("import a.tasks\nimport b.tasks", "a.tasks, b.tasks are imported, and MIXTURE_OR_TASK_"),
    ],
)
def test_what_is_not_here(tmp_path, text, words):
    (tmp_path / "between.gin").write_text("from t5x import utils\ninclude 'their.gin'\n")
    assert words in refusal(tmp_path, text + "\n")


def test_a_refusal_goes_where_the_caller_says_it_himself(tmp_path):
    text = SWITCH + "NUM_SELECTED_EXPERTS = 2\n"
    said = refusal(tmp_path, text)
    assert "num_selected_experts=2: of several experts' gates" in said
    assert "--gin.SwitchConfig.top_k=" in said
    switch = settings("--gin_file=their.gin", "--gin.SwitchConfig.top_k=2").run.model.switch
    assert switch.top_k == 2


def test_two_of_theirs_that_are_one_here_must_agree(tmp_path):
    said = refusal(tmp_path, SWITCH + "EXPERT_MLP_DIM = 1024\n")
    assert "ModelConfig.d_ff would be 1024, and 3072 by" in said


def test_what_nobody_set_is_named_as_in_a_file_of_ours(tmp_path):
    text = PRETRAIN.replace("DROPOUT_RATE = 0.1\n", "")
    assert refusal(tmp_path, text).startswith("DROPOUT_RATE is required and not set")


def test_a_value_refused_later_says_where_it_stands(tmp_path):
    text = PRETRAIN.replace("eval_period = 50", "eval_period = 0")
    line = text.split("\n").index("  eval_period = 0") + 1
    assert refusal(tmp_path, text).endswith(f"(EVAL_PERIOD: their.gin line {line}.)")


def test_a_flag_that_nothing_uses(tmp_path):
    said = refusal(tmp_path, PRETRAIN, "--gin.infer_eval/utils.DatasetConfig.batch_size=3")
    assert "nothing in this configuration uses it" in said


def test_the_table_names_settings_that_there_are():
    macros = {binding.target for binding in Reader().read_file(BASE) if binding.is_macro}
    named = set()
    for rows in TABLE.values():
        for parameter, row in rows.items():
            named |= set(row) if parameter == "@" else {row.ours} - {None}
    assert named <= macros | set(PARAMETERS)
    assert {f"ModelConfig.{name}" for name in ("d_model", "d_ff", "vocab_size")} <= named
    assert all(why[-1] != "." for why in NONE_HERE.values())
