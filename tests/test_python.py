"""The Python face: what docs/python.md shows, and what it says is so."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import switchx
from switchx.errors import UserError

DOCS = Path(__file__).parents[1] / "docs/python.md"
TEXT = "line 3 says that __ is seven times 3"


@pytest.fixture(scope="module")
def run(trained):
    return switchx.Run(trained.run)


def test_importing_it_is_free():
    code = "import sys, switchx; print([n for n in ('jax', 'gin', 'numpy') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_the_ten_lines_of_the_documentation(trained, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    shutil.copytree(trained.run, tmp_path / "runs/quickstart")
    monkeypatch.chdir(tmp_path)
    assert len(code.splitlines()) <= 12
    exec(compile(code, str(DOCS), "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out


def test_a_run_knows_its_configuration_and_metrics(run, trained):
    assert run.config.run.trainer.train_steps == 4
    assert [row["step"] for row in run.metrics if row["split"] == "validation"] == [2, 4]
    lines = (trained.run / "metrics.jsonl").read_text().splitlines()
    assert run.metrics == [json.loads(line) for line in lines]
    assert run.step == 4
    changed = switchx.Run(trained.run, step=2, EVAL_STEPS=1)
    assert (changed.step, changed.config.data.eval_batches) == (2, 1)


def test_what_is_wrong_is_said(run, trained):
    with pytest.raises(UserError, match="holds no config"):
        switchx.Run("nowhere")
    with pytest.raises(UserError, match="BATCH_SIZE='x' must be a whole number"):
        switchx.configure(BATCH_SIZE="x")
    with pytest.raises(UserError, match="METRIC_WRITERS='wandb' must be a tuple or a list"):
        switchx.configure(METRIC_WRITERS="wandb")
    with pytest.raises(UserError, match="names 'jsonl', which is none of tensorboard, wandb"):
        switchx.configure(METRIC_WRITERS=["tensorboard", "jsonl"])
    with pytest.raises(UserError, match="the nearest name is BATCH_SIZE"):
        switchx.configure(BATCHSIZE=8)
    with pytest.raises(UserError, match="longer than"):
        run.encode("a" * 100)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda run: switchx.Run(""), "--model_dir='' names no file"),
        (lambda run: switchx.Run("runs", step=2.0), "step=2.0 is no step: give a whole number"),
        (lambda run: switchx.configure("my.gin"), r"gin_files='my.gin' is one alone: give a list"),
        (lambda run: switchx.configure({"SEED": 1}), r"gin_files={'SEED': 1} is no list: give one"),
        (lambda run: switchx.configure(Path("my.gin")), "gin_files=.* is one alone: give a list"),
        (lambda run: switchx.configure(None), "gin_files=None is no list"),
        (lambda run: switchx.configure([None]), "gin_files=.* holds None: give each as a str"),
        (lambda run: switchx.Run(None), "model_dir=None is no path: give a str or a Path"),
        (lambda run: switchx.configure((), b"runs"), "model_dir=b'runs' is no path"),
        (lambda run: switchx.Run("runs", MODEL_DIR="r"), "MODEL_DIR='r' and model_dir='runs' name"),
        (lambda run: switchx.train("my.gin"), "'my.gin' is no configuration: give what switchx.c"),
        (lambda run: switchx.fork(run, "runs", 2), "is no configuration: give what switchx.conf"),
        (lambda run: switchx.fork(run.config, None, 2), "source=None is no path"),
        (lambda run: switchx.train(run.config, writers=["wandb"]), r"'wandb', .* no begin\(\)"),
        (lambda run: switchx.train(run.config, writers=print), "writers=.* is no list"),
        (lambda run: switchx.train(run.config, profile_steps=(1, 2)), "must be FIRST:LAST"),
        (lambda run: run.score([TEXT, TEXT], ["b"]), "texts are 2 and targets 1: give each"),
        (lambda run: run.answer(None), "texts=None is no list"),
        (lambda run: run.answer([TEXT], max_length=2), "max_length=2 is none of length, method"),
        (lambda run: run.answer(TEXT), "texts='line 3 .* is one alone: give a list"),
        (lambda run: run.score([TEXT], "b"), "targets='b' is one alone: give a list"),
        (lambda run: run.inspect(tasks="t"), "tasks='t' is one alone: give a list"),
        (lambda run: run.inspect(tasks=[5]), r"tasks=\[5\] holds 5: give each as a str"),
        (lambda run: run.inspect(earlier=2.0), "earlier=2.0 is no step: give a whole number"),
        (lambda run: run.inspect(earlier=True), "earlier=True is no step"),
        (lambda run: run.decode("ab"), "tokens='ab' is one alone: give a list"),
        (lambda run: run.decode([3, 1.5]), "tokens hold 1.5: give whole numbers from 0 to 383"),
        (lambda run: run.decode(np.array([384])), "tokens hold 384: give whole"),
        (lambda run: run.answer(b"x"), "texts=b'x' is one alone: give a list"),
        (lambda run: run.answer([3]), "3 is no text: give a str"),
        (lambda run: run.answer([TEXT], num_beams=2), "--num_beams=2 has no effect with --method"),
        (lambda run: run.answer([TEXT], length=2.5), "--max_length=2.5 must be a whole number"),
        (
            lambda run: run.answer([TEXT], method="sample", temperature="hot"),
            "--temperature='hot' must be a number",
        ),
        (
            lambda run: run.answer([TEXT], method="sample", temperature=1e39),
            r"--temperature=1e\+39 must be from 1.2e-38 to 3.4e\+38, as float32 holds it",
        ),
    ],
)  # fmt: skip
def test_what_would_mean_something_else_is_refused(run, ask, says):
    with pytest.raises(UserError, match=says):
        ask(run)


def test_texts_may_come_as_they_like(run):
    (given,) = run.answer(text for text in [TEXT])
    assert given == run.answer([TEXT])[0]
    assert run.score([], []).shape == (0,)
    assert run.encode("a \ud800") == run.encode("a ?")


def test_what_numpy_and_jax_have_is_as_python_has_it(run, trained, tmp_path):
    """What is written to config.gin is read again, whatever a script computed it with."""
    changes = {
        "LEARNING_RATE": np.linspace(0.5, 1, 2)[0],  # a float that is shown as np.float64(0.5)
        "TRAIN_STEPS": jnp.int32(7),
        "C4_JSON_TRAIN": tmp_path / "t.jsonl",
        "TASK_FEATURE_LENGTHS": {"inputs": np.int64(64), np.str_("targets"): 32},
        "FREEZE": np.array(["experts"]),
    }
    config = switchx.configure([trained.run / "config.gin"], tmp_path, **changes)
    (tmp_path / "config.gin").write_text(config.resolved)
    again = switchx.configure([tmp_path / "config.gin"])
    assert again.resolved == config.resolved
    assert again.run.optimizer.learning_rate == 0.5
    assert again.run.trainer.train_steps == 7
    assert again.data.feature_lengths == {"inputs": 64, "targets": 32}
    assert switchx.Run(trained.run, step=np.int64(2)).step == 2
    drawn = {"method": "sample", "temperature": np.float32(0.5), "seed": np.int32(3)}
    assert run.decoding(**drawn) == run.decoding(method="sample", temperature=0.5, seed=3)


def test_answers_are_those_of_the_command(run, trained, tmp_path, capsys):
    from switchx.cli.main import main

    (tmp_path / "in.jsonl").write_text(json.dumps({"text": TEXT}))
    main(["infer", f"--model_dir={trained.run}", f"--input={tmp_path / 'in.jsonl'}"])
    told = json.loads(capsys.readouterr().out)
    (answer,) = run.answer([TEXT])
    assert (told["output"], told["filled"]) == (answer.output, answer.filled)


def test_a_score_is_the_sum_of_the_logits_log_probabilities(run):
    target = "<extra_id_0>21"
    logits_LV = run.logits(TEXT, target)
    tokens = [*run.vocabulary.encode_blanks(target), run.vocabulary.eos_id]
    assert logits_LV.shape == (len(tokens), run.config.run.model.vocab_size)
    shifted = logits_LV.astype(float) - logits_LV.max(axis=1, keepdims=True)
    logp_LV = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    expected = logp_LV[np.arange(len(tokens)), tokens].sum()
    scores_B = run.score([TEXT, "other __"], [target, "<extra_id_0>x"])
    assert scores_B.shape == (2,)
    assert scores_B[0] == pytest.approx(expected, rel=1e-4)


def test_routing_names_an_expert_for_every_token_of_every_layer(run):
    target = "<extra_id_0>21"
    layers = run.routing(TEXT, target)
    assert [layer.name for layer in layers] == ["encoder 0", "decoder 0"]
    lengths = (len(run.encode(TEXT)), len(run.vocabulary.encode_blanks(target)) + 1)
    for layer, length in zip(layers, lengths, strict=True):
        assert layer.expert_LJ.shape == layer.gate_LJ.shape == layer.kept_LJ.shape == (length, 1)
        assert layer.kept_LJ.all()
        assert ((layer.expert_LJ >= 0) & (layer.expert_LJ < 8)).all()
        assert ((layer.gate_LJ > 1 / 8 - 1e-6) & (layer.gate_LJ <= 1)).all()  # of the best of 8


def test_training_from_a_script_goes_on(trained, tmp_path):
    folder = shutil.copytree(trained.run, tmp_path / "copy")
    config = switchx.configure([str(folder / "config.gin")], TRAIN_STEPS=5)
    told = []

    class Own:
        """A writer that notes every call."""

        def __getattr__(self, method):
            return lambda *args: told.append((method, args))

    run = switchx.train(config, writers=[Own()])
    assert [row["step"] for row in run.metrics if row["split"] == "train"] == [1, 2, 3, 4, 5]
    ((facts, step, rows), *_) = (args for method, args in told if method == "begin")
    assert (facts.hyperparameters["TRAIN_STEPS"], step, rows) == (5, 4, run.metrics[: len(rows)])
    assert [args for method, args in told if method == "write"] == [
        (row,) for row in run.metrics[len(rows) :]
    ]
    pictures = [args[1:] for method, args in told if method == "picture"]
    assert [name for name, _ in pictures] == ["loss", "expert_load"]
    assert all(png.startswith(b"\x89PNG") for _, png in pictures)
    assert told[-1] == ("close", ("finished",))


def test_a_mesh_that_the_caller_has_in_force_is_left_alone(run):
    """What is asked is computed on the run's own, and comes as NumPy's."""
    expected = run.logits(TEXT, "<extra_id_0>21")
    with jax.set_mesh(jax.make_mesh((jax.device_count(),), ("mine",))):
        np.testing.assert_array_equal(run.logits(TEXT, "<extra_id_0>21"), expected)
