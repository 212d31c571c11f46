"""`switchx prune`: what it measures by transformers' routers, what it writes, what it refuses."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

import switchx
from switchx import data
from switchx.cli.main import main
from switchx.evaluation.usage import Use
from switchx.interop.new_run import bring_vocabulary
from switchx.training.checkpoints.identity import newest_identity
from tests.interop.peers import torch, transformers

ROOM = "--gin.EVAL_CAPACITY_FACTOR=8"  # for all tokens, as in transformers

FOLD = "--fold_gates"


def said(*argv):
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*argv]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """A folder with the trained run as it is, pruned to three experts, and to none."""
    folder = tmp_path_factory.mktemp("pruned")
    shutil.copytree(trained.run, folder / "whole")
    with contextlib.chdir(folder):
        before = sorted(path.name for path in (folder / "whole").rglob("*"))
        flags = ("prune", "--from_dir=whole", "--json")
        for name, how in {"three": ("--experts=3", ROOM, FOLD), "one": ("--to_dense",)}.items():
            printed = said(*flags, f"--model_dir={name}", *how)
            assert json.loads(printed) == document(folder / name)
        assert sorted(path.name for path in (folder / "whole").rglob("*")) == before
    return folder


def document(run):
    return json.loads((run / "pruning.json").read_text())


def test_losses_are_those_of_eval(runs):
    (row,), (other,) = (document(runs / name)["evaluations"] for name in ("one", "three"))
    for run, flags, expected in (
        ("whole", (), row["before"]),
        ("three", (ROOM,), other["after"]),
    ):
        printed = said("eval", "--json", f"--model_dir={runs / run}", *flags)
        assert json.loads(printed) == expected
    assert row["before"]["examples"] == row["before"]["examples_in_split"]
    assert len({row["before"]["loss"], row["after"]["loss"], other["after"]["loss"]}) == 3


def test_a_run_says_where_it_is_from(runs):
    made = json.loads((runs / "three/start.json").read_text())
    expected = {"from": "pruned", "path": str(runs / "whole"), "checkpoint": 4, "step": 4}
    assert made | {"path": str((runs / made["path"]).resolve())} == {
        **expected,
        "optimizer": "fresh",
    }
    whole, three, one = (switchx.Run(runs / name) for name in ("whole", "three", "one"))
    experts = whole.config.run.model.switch.num_experts
    assert (experts, three.config.run.model.switch.num_experts) == (8, 3)
    assert one.config.run.model.switch is None
    found = document(runs / "one")["parameters"]
    assert found == {"before": whole.model.num_params, "after": one.model.num_params}
    assert (
        newest_identity(runs / "three")["vocabulary"]
        == newest_identity(runs / "whole")["vocabulary"]
    )  # so that another is still refused


def test_use_is_that_of_transformers_routers(runs, tmp_path):
    """NumPy counts of the experts that transformers' model of the same parameters asks for."""
    said("export", "--to=hf", f"--model_dir={runs / 'whole'}", f"--output={tmp_path / 'hf'}")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    count = {stack: np.zeros(8) for stack in ("encoder", "decoder")}
    gates = {stack: np.zeros(8) for stack in count}
    all_probs = {stack: [] for stack in count}
    for batch in data.eval_batches(switchx.Run(runs / "whole").config.data):
        encoder, decoder = (batch[f"{of}_input_tokens"] for of in count)
        with torch.no_grad():
            output = theirs(
                input_ids=torch.tensor(encoder).long(),
                attention_mask=torch.tensor(encoder > 0).long(),
                decoder_input_ids=torch.tensor(decoder).long(),
                output_router_logits=True,
            )
        real = {"encoder": encoder > 0, "decoder": batch["decoder_target_tokens"] > 0}
        for stack, mask_BL in real.items():
            (found,) = output[f"{stack}_router_logits"]
            logits = found.numpy().reshape(*mask_BL.shape, 8)[mask_BL].astype(np.float64)
            probs = np.exp(logits - logits.max(-1, keepdims=True))
            probs /= probs.sum(-1, keepdims=True)
            all_probs[stack].append(probs)
            np.add.at(count[stack], probs.argmax(-1), 1)
            np.add.at(gates[stack], probs.argmax(-1), probs.max(-1))
    for layer in document(runs / "three")["layers"]:
        stack = layer["name"].split()[0]
        total = count[stack].sum()
        np.testing.assert_allclose(layer["load"], count[stack] / total, atol=2 / total)
        expected = gates[stack] / np.maximum(count[stack], 1)
        np.testing.assert_allclose(layer["gate"], expected, atol=1e-3)
        assert layer["kept"] == sorted(np.argsort(-gates[stack])[:3])
        left = np.concatenate(all_probs[stack])[:, layer["kept"]]
        for n, scale in enumerate(layer["scale"]):
            own = left[left.argmax(-1) == n]
            np.testing.assert_allclose(scale, own.sum(-1).mean(), rtol=1e-2)
        (of_one,) = (x for x in document(runs / "one")["layers"] if x["name"] == layer["name"])
        assert (of_one["dense"], of_one["scale"]) == (True, None)


def test_one_expert_a_layer_is_transformers_t5(runs, tmp_path):
    said("export", "--to=hf", f"--model_dir={runs / 'one'}", f"--output={tmp_path / 'hf'}")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    assert type(theirs).__name__ == "T5ForConditionalGeneration"
    run, text = switchx.Run(runs / "one"), "line 3 says that <extra_id_0> is seven times 3"
    targets = [*run.vocabulary.encode_blanks("<extra_id_0> 21"), run.vocabulary.eos_id]
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor([run.encode(text)]),
            decoder_input_ids=torch.tensor([[0, *targets[:-1]]]),
        ).logits.numpy()[0]
    np.testing.assert_allclose(run.logits(text, "<extra_id_0> 21"), expected, rtol=0, atol=1e-4)


BAD = {
    "none": (["--experts=0"], "--experts=0 must be from 1 to 7"),
    "all": (["--experts=8"], "--experts=8 must be from 1 to 7: the model in --from_dir=whole has"),
    "one to spread": (["--experts=1", "--spread"], "--spread needs --experts=N of at least 2"),
    "dense to spread": (["--to_dense", "--spread"], "--spread needs --experts=N of at least 2"),
    "dense": (["--experts=2", "--from_dir=one"], "--from_dir=one holds a dense model, which has"),
    "two choices": (
        ["--experts=1", "--gin.SwitchConfig.top_k=2"],
        "--experts=1 must be from 2 to 7: the model in --from_dir=whole has NUM_EXPERTS=8, of wh",
    ),
    "there": (["--experts=2", "--model_dir=one"], "--model_dir='one' exists already"),
    "no run": (["--experts=2", "--from_dir=nowhere"], "--from_dir=nowhere holds no config.gin"),
    "checkpoints": (["--experts=2", "--from_dir=whole/checkpoints"], "directory: name 'whole'"),
    "no step": (["--experts=2", "--step=3"], "--step=3 is not in MODEL_DIR='whole'"),
    "vocabulary": (
        ["--experts=2", "--gin.VOCABULARY='default'"],
        "ModelConfig.vocab_size=384 is less than the 32100 ids of the task's vocabulary",
    ),
    "no task": (["--experts=2", "--task=nothing"], "'nothing'"),
    "no text": (["--experts=2", "--text=empty.txt"], "--text='empty.txt' holds no text"),
    "mesh": (["--experts=3", "--gin.MESH_EXPERT=2"], "NUM_EXPERTS=3 must be a multiple of MESH_"),
    "nothing asked": ([], "One of the arguments --experts --to_dense is required"),
}


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_pruned_is_one_line(runs, command, tmp_path, flags, message):
    for name in ("whole", "one"):
        (tmp_path / name).symlink_to(runs / name)
    (tmp_path / "empty.txt").write_text(" ")
    outcome = command("prune", "--from_dir=whole", "--model_dir=new", *flags)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_task_of_another_vocabulary(runs, command, tmp_path, monkeypatch):
    """Of as many ids."""
    digest, task = data.vocabulary_digest, "python_docs_span_corruption"
    monkeypatch.setattr(
        "switchx.data.vocabulary_digest",
        lambda config: "another" if config.mixture_or_task_name == task else digest(config),
    )
    flags = ("--model_dir=new", "--to_dense", f"--task={task}")
    outcome = command("prune", f"--from_dir={runs / 'whole'}", *flags)
    assert outcome.status == 2
    assert "VOCABULARY does not match the checkpoint in MODEL_DIR=" in outcome.err
    assert not (tmp_path / "new").exists()


def test_a_task_that_uses_no_expert(runs, command, tmp_path, monkeypatch):
    nothing = Use("decoder 1", np.zeros(8), np.zeros(8))
    monkeypatch.setattr("switchx.evaluation.usage.usage", lambda *_: [nothing])
    outcome = command("prune", f"--from_dir={runs / 'whole'}", "--model_dir=new", "--to_dense")
    assert outcome.status == 2
    assert "'c4_json_span_corruption' uses no expert of decoder 1" in outcome.err
    assert not (tmp_path / "new").exists()


def test_an_imports_vocabulary_comes_along(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/vocabulary.model").write_bytes(b"pieces")
    named, to = str(tmp_path / "old/vocabulary.model"), tmp_path / "new"
    part = tmp_path / "part"
    found = bring_vocabulary(f"VOCABULARY = {named!r}", named, str(tmp_path / "old"), part, to)
    assert found == f"VOCABULARY = {str(to / 'vocabulary.model')!r}"
    assert (part / "vocabulary.model").read_bytes() == b"pieces"
    assert bring_vocabulary("x", "bytes", str(tmp_path / "old"), part, to) == "x"
    (tmp_path / "secret").write_bytes(b"other")
    outside = str(tmp_path / "old/../secret")
    bring_vocabulary("x", outside, str(tmp_path / "old"), part, to)  # its copy stays in the run
    assert (part / "secret").read_bytes() == b"other"
