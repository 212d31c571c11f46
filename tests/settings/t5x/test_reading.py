"""A file in T5X's words trains what T5X would: each number is compared with what the file says."""

import re

import pytest

from switchx.settings import Request, load, read_flag
from tests.settings.test_loading import settings

PRETRAIN = """
from __gin__ import dynamic_registration

import __main__ as train_script
from t5x import partitioning
from t5x import trainer
from t5x import utils
import my_project.tasks

include 't5x/examples/t5/t5_1_1/small.gin'
include 't5x/configs/runs/pretrain.gin'

MIXTURE_OR_TASK_NAME = 'a_task'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}
TRAIN_STEPS = 3_000
DROPOUT_RATE = 0.1
BATCH_SIZE = 24
USE_CACHED_TASKS = False

train_script.train:
  eval_period = 50
  eval_steps = None
  random_seed = 7
train/utils.DatasetConfig:
  pack = False
  seed = 7
train_eval/utils.DatasetConfig.batch_size = 12
utils.SaveCheckpointConfig:
  period = 250
  keep = 4
trainer.Trainer.num_microbatches = 2
utils.create_learning_rate_scheduler:
  factors = 'constant * linear_warmup'
  base_learning_rate = 0.5
  warmup_steps = 20
partitioning.PjitPartitioner.model_parallel_submesh = (2, 1, 1, 2)
"""

SWITCH = """
from __gin__ import dynamic_registration
from flaxformer.components import dense
from flaxformer.architectures.moe import routing

include 'flaxformer/t5x/configs/moe/models/switch_base.gin'
include 't5x/contrib/moe/configs/runs/pretrain.gin'

MIXTURE_OR_TASK_NAME = 'a_task'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}
TRAIN_STEPS = 1000
NUM_EXPERTS = 8
NUM_DECODER_SPARSE_LAYERS = 3
GROUP_SIZE = 512
EXPERT_DROPOUT_RATE = 0.4
sparse_encoder/routing.TokensChooseMaskedRouter.batch_prioritized_routing = True
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def read(tmp_path):
    """The settings that a text comes to, with flags beside it."""

    def read_text(text, *flags):
        (tmp_path / "their.gin").write_text(text)
        return settings("--gin_file=their.gin", *flags)

    return read_text


def test_each_number_of_a_pretraining_file_is_used(read):
    found = read(PRETRAIN)
    model, trainer, optimizer = found.run.model, found.run.trainer, found.run.optimizer
    sizes = (model.d_model, model.d_ff, model.d_kv, model.num_heads, model.num_layers)
    assert sizes == (512, 1024, 64, 6, 8)
    assert (model.activation, model.tied_embeddings, model.vocab_size) == ("geglu", False, 32128)
    assert (model.switch, model.dropout_rate, model.dtype) == (None, 0.1, "bfloat16")
    data = found.data
    assert (data.mixture_or_task_name, data.task_module) == ("a_task", "my_project.tasks")
    assert data.feature_lengths == {"inputs": 64, "targets": 16}
    assert (data.batch_size, data.eval_batch_size, data.eval_batches) == (24, 12, None)
    assert (data.pack, data.vocabulary, data.seed, trainer.seed) == (False, "t5", 7, 7)
    assert (trainer.train_steps, trainer.eval_period, trainer.microbatches) == (3000, 50, 2)
    assert (trainer.checkpoint_period, trainer.keep_checkpoints) == (250, 4)
    assert (trainer.z_loss, trainer.label_smoothing) == (0.0001, 0.0)
    rates = (optimizer.schedule, optimizer.learning_rate, optimizer.warmup_steps)
    assert (optimizer.name, *rates) == ("adafactor", "constant", 0.5, 20)
    assert (found.run.mesh.data, found.run.mesh.model) == (-1, 4)
    assert not found.scores.during_training
    assert found.model_dir == "runs/their"


def test_the_scanned_network_has_a_bias_in_every_layer(read):
    text = PRETRAIN.replace("t5x/examples/t5/", "t5x/examples/scalable_t5/")
    text += "from t5x.examples.scalable_t5 import network\n"
    model = read(text + "network.T5Config.mlp_activations = ('silu', 'linear')\n").run.model
    assert (model.bias_per_layer, model.scan, model.remat) == (True, True, "dots")
    assert (model.d_model, model.activation) == (512, "swiglu")
    assert not read(PRETRAIN).run.model.bias_per_layer


def test_a_switch_model_has_t5xs_groups_losses_and_layers(read):
    found = read(SWITCH)
    model, mesh = found.run.model, found.run.mesh
    switch = model.switch
    assert (model.d_model, model.d_ff, model.activation) == (768, 3072, "relu")
    assert (model.tied_embeddings, model.init_scale) == (True, 0.1)
    assert tuple(model.encoder.sparse_layers) == (1, 3, 5, 7, 9, 11)
    assert tuple(model.decoder.sparse_layers) == (3, 7, 11)
    assert (switch.num_experts, switch.top_k, switch.jitter) == (8, 1, 0.0)
    assert (switch.train_capacity_factor, switch.eval_capacity_factor) == (1.25, 2.0)
    assert (switch.encoder_group_size, switch.decoder_group_size) == (512, 512)
    assert (switch.group_padding, switch.min_capacity, switch.priority) == ("flaxformer", 4, "gate")
    assert (model.dropout_rate, switch.expert_dropout_rate) == (0.0, 0.4)
    # T5X takes the mean over the nine layers, where switchx takes the sum.
    assert switch.balance_loss_weight == pytest.approx(0.01 / 9)
    assert switch.router_z_loss_weight == 0.0
    # A standard deviation of 0.02 is that of a scale of 0.02^2 x d_model.
    assert switch.router_init_scale == pytest.approx(0.02**2 * 768)
    assert (mesh.data, mesh.expert) == (1, -1)


def test_what_is_there_as_a_file_goes_before_what_is_known(read, tmp_path):
    folder = tmp_path / "checkout/t5x/examples/t5/t5_1_1"
    folder.mkdir(parents=True)
    (folder / "small.gin").write_text(
        "from t5x.examples.t5 import network\n"
        "include 't5x/examples/t5/t5_1_1/base.gin'\n"
        "network.T5Config.emb_dim = 256\n"
    )
    checkout = "--gin_search_paths=checkout"
    assert read(PRETRAIN, checkout).run.model.d_model == 256
    assert read(PRETRAIN, checkout).run.model.num_heads == 12  # of the base that is known
    (folder / "base.gin").write_text("from t5x.examples.t5 import network\nnetwork.T5Confg.x = 1\n")
    with pytest.raises(Exception, match=r"t5_1_1/base.gin line 2: there is no .*network.T5Config"):
        read(PRETRAIN, checkout)


def test_flags_in_either_language_go_before_files(read):
    found = read(
        PRETRAIN,
        "--gin.TRAIN_STEPS=77",  # a macro of both
        "--gin.train_script.train.eval_period=9",
        "--gin.network.T5Config.num_heads=4",
        "--gin.MESH_MODEL=1",  # ours alone
        "--gin.VOCABULARY=/a/vocabulary.model",  # an object there, a path here
        "--gin.ModelConfig.relative_buckets=16",
    )
    assert (found.run.trainer.train_steps, found.run.trainer.eval_period) == (77, 9)
    assert (found.run.model.num_heads, found.run.model.relative_buckets) == (4, 16)
    assert found.run.mesh.model == 1
    assert found.data.vocabulary == "/a/vocabulary.model"


FINETUNE = """
include 't5x/examples/t5/t5_1_1/base.gin'
include 't5x/configs/runs/finetune.gin'
from t5x import models
MIXTURE_OR_TASK_NAME = 'a_task'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}
TRAIN_STEPS = 1_020_000
INITIAL_CHECKPOINT_PATH = '/a/t5_1_1_base/checkpoint_1000000'
models.EncoderDecoderModel.predict_batch_with_aux.num_decodes = 4
"""


def test_fine_tuning_starts_from_the_import_and_leaves_out_the_steps_before(read):
    with pytest.raises(Exception, match="switchx import --from=t5x --input=/a/t5_1_1_base/"):
        read(FINETUNE)
    found = read(FINETUNE, "--gin.START_FROM=runs/imported")
    assert (found.start.from_run, found.start.step) == ("runs/imported", "continue")
    assert found.start.optimizer
    assert found.run.trainer.train_steps == 20_000
    assert any("the 1000000 steps before" in line for line in found.theirs)
    rates = found.run.optimizer
    assert (rates.schedule, rates.learning_rate, rates.warmup_steps) == ("constant", 0.001, 1)
    assert (found.scores.during_training, found.scores.method) == (True, "beam")
    assert found.scores.num_beams == 4
    assert found.run.trainer.keep_checkpoints == 4  # None: all of 20,000 / 5,000


def test_steps_before_a_checkpoint_of_no_number_have_to_be_said(read):
    text = FINETUNE.replace("/checkpoint_1000000", "")
    with pytest.raises(Exception, match="relative_steps=N"):
        read(text)
    found = read(text, "--gin.train_script.train.relative_steps=50")
    assert (found.run.trainer.train_steps, found.start.from_run) == (50, "/a/t5_1_1_base")


def test_what_is_used_and_what_is_passed_over_is_shown_with_its_place(read):
    text = PRETRAIN.replace("pack = False", "shuffle = False")
    lines = text.split("\n")
    steps, shuffle = (lines.index(x) + 1 for x in ("TRAIN_STEPS = 3_000", "  shuffle = False"))
    said = "\n".join(read(text).theirs)
    assert re.search(rf"TRAIN_STEPS = 3000 +# their.gin line {steps}\n", said)
    assert "# t5x/configs/runs/pretrain.gin, as switchx knows it" in said
    place = f"their.gin line {shuffle}: train/utils.DatasetConfig.shuffle=False"
    assert f"{place}: the order of examples" in said
    assert "loss_normalizing_factor=None: the loss is the mean over target tokens" in said


def test_the_resolved_text_gives_the_same_run(read, tmp_path):
    found = read(SWITCH)
    (tmp_path / "resolved.gin").write_text(found.resolved)
    assert settings("--gin_file=resolved.gin") == found


def test_python_takes_them_too(read, tmp_path):
    (tmp_path / "their.gin").write_text(PRETRAIN)
    found = load(Request(("their.gin",), (read_flag("BATCH_SIZE=16"),)))
    assert found.data.batch_size == 16
