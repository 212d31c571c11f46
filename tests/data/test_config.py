"""Bad values get one sentence, and importing the package costs nothing."""

import subprocess
import sys

import pytest

from switchx.data import eval_batches, preflight, train_stream
from switchx.data.config import check_values
from switchx.errors import UserError

from .conftest import docs_config

MISTAKES = {
    "batch": ({"batch_size": 0}, "BATCH_SIZE=0 is no count: give a whole number of at least 1."),
    "fraction": ({"batch_size": 2.5}, "BATCH_SIZE=2.5 is"),
    "eval_batch": ({"eval_batch_size": -1}, "EVAL_BATCH_SIZE=-1 is"),
    "eval_steps": ({"eval_batches": 0}, "EVAL_STEPS=0 is"),
    "seed": ({"seed": -3}, "SEED=-3 is no seed: give a whole number from 0"),
    "share": ({"max_broken_share": 1.5}, "MAX_BROKEN_LINES=1.5 is no share: give one from 0 to 1."),
    "no_targets": ({"feature_lengths": {"inputs": 64}}, r"TASK_FEATURE_LENGTHS={'inputs': 64} is"),
    "not_a_map": ({"feature_lengths": 64}, "TASK_FEATURE_LENGTHS=64 is"),
    "no_length": (
        {"feature_lengths": {"inputs": 64, "targets": 0}},
        r"TASK_FEATURE_LENGTHS\['targets'\]=0 is",
    ),
    "no_name": ({"mixture_or_task_name": ""}, "MIXTURE_OR_TASK_NAME is empty:"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_value(mistake):
    change, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        check_values(docs_config(**change))


@pytest.mark.parametrize("entrance", [preflight, train_stream, eval_batches])
def test_every_entrance_checks_values(entrance):
    with pytest.raises(UserError, match="BATCH_SIZE=0 is"):
        entrance(docs_config(batch_size=0))


def test_entrances_can_be_called_again():
    import switchx.data as data

    for _ in range(2):
        data.preflight(docs_config())
        assert data.vocabulary(docs_config()).size
        assert next(data.eval_batches(docs_config()))


def test_defaults():
    config = docs_config(cache_dir="~/somewhere")
    check_values(config)
    assert config.rows_per_eval_batch == config.batch_size
    assert docs_config(eval_batch_size=7).rows_per_eval_batch == 7
    assert not str(config.cache_path).startswith("~")


def test_cache_follows_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHX_CACHE", str(tmp_path))
    assert docs_config().cache_path == tmp_path
    assert docs_config(cache_dir="/elsewhere").cache_path.as_posix() == "/elsewhere"


def test_import_and_own_vocabulary_leave_tensorflow_alone():
    code = (
        "import sys, switchx.data as d\n"
        "c = d.DataConfig('python_docs_span_corruption', {'inputs': 64, 'targets': 18}, 4)\n"
        "heavy = {'tensorflow', 'seqio', 't5', 'tensorflow_datasets', 'jax'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert d.vocabulary(c).size > 1000\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_tensorflow_is_silent_and_takes_no_accelerator():
    code = (
        "from switchx.data.tensorflow_loader import load_tensorflow\n"
        "tf = load_tensorflow()\n"
        "assert not tf.config.get_visible_devices('GPU')\n"
        "import sys; print('mine', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "mine\n")
