"""Bad values get one sentence, and importing the package costs nothing."""

import subprocess
import sys

import pytest

from switchx.data import eval_batches, preflight, train_stream
from switchx.data.config import SPLITS, check_values
from switchx.errors import UserError

from .conftest import docs_config, record, sentences, write_lines

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
    "masked": (
        {"mixture_or_task_name": "c4_json_masked_lm"},
        r"gives two lengths, and MIXTURE_OR_TASK_NAME='c4_json_masked_lm' has .* places of its in",
    ),
    "endless": ({"timeout": 1e30}, r"DATA_TIMEOUT=1e\+30 is no time: .*, at most 1e\+09\."),
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


NO_TENSORFLOW = {
    "no glob": ({"json_train_glob": None}, "C4_JSON_TRAIN is not set"),
    "no files": ({"json_train_glob": "/no/such/*"}, "C4_JSON_TRAIN='/no/such/*' matches no file"),
    "no vocabulary": ({"vocabulary": "/no/such.model"}, "VOCABULARY='/no/such.model' leads to"),
    "too short": ({"feature_lengths": {"inputs": 64, "targets": 10}}, "give at least 14 targets"),
    "too long": ({"feature_lengths": {"inputs": 4096, "targets": 910}}, "take 227 sentinels"),
    "no set": ({"prepared_dir": "/no/such"}, "holds no prepared set of 'c4_json_"),
}


def test_what_is_known_without_tensorflow_is_said_without_it(tmp_path):
    files = {f"json_{split}_glob": write_lines(tmp_path / split, []) for split in SPLITS}
    given = {"mixture_or_task_name": "c4_json_span_corruption", "vocabulary": "bytes", **files}
    configs = [docs_config(**{**given, **change}) for change, _ in NO_TENSORFLOW.values()]
    code = (
        "import sys\nfrom switchx.data import DataConfig, preflight\n"
        "from switchx.errors import UserError\n"
        f"for config in {configs!r}:\n"
        "    try:\n        preflight(config)\n"
        "    except UserError as error:\n        print(error)\n"
        "assert not {'tensorflow', 'seqio', 'jax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for line, (_, sentence) in zip(done.stdout.splitlines(), NO_TENSORFLOW.values(), strict=True):
        assert sentence in line


def test_a_command_asks_only_for_the_splits_it_reads(tmp_path):
    """As `eval` of a run whose training files are gone."""
    config = docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        vocabulary="bytes",
        json_train_glob=str(tmp_path / "gone-*"),
        json_validation_glob=write_lines(tmp_path / "v.json", map(record, sentences(40))),
    )
    preflight(config, ["validation"])
    assert len(list(eval_batches(config))) == 3
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN='.*gone-\*' matches no file"):
        preflight(config, ["train"])


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "t.json", map(record, sentences(40)))
    paths = {f"json_{split}_glob": "~/t.json" for split in SPLITS}
    config = docs_config(
        mixture_or_task_name="c4_json_span_corruption", vocabulary="bytes", **paths
    )
    assert len(list(eval_batches(config))) == 3


def test_our_error_in_a_pipeline_is_one_line(tmp_path):
    """Also where JAX was imported before, which sets the log level of TensorFlow's C++ side."""
    glob = write_lines(tmp_path / "v.json", ["{broken"] * 5)
    config = docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        vocabulary="bytes",
        json_validation_glob=glob,
    )
    code = (
        "import jax, os, sys\nbefore = dict(os.environ)\n"
        "from switchx.data import DataConfig, eval_batches\n"
        "assert dict(os.environ) == before\n"
        "from switchx.errors import UserError\n"
        f"try:\n    next(eval_batches({config!r}))\n"
        "except UserError as error:\n    print(error, file=sys.stderr)\n"
        "import tensorflow\nassert not tensorflow.config.get_visible_devices('GPU')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("MAX_BROKEN_LINES=0.01 but 5 of 5 lines")
