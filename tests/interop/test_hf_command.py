"""`switchx import --from=hf` and `switchx export --to=hf`, as a user types them."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

from switchx import data
from switchx.model import Model
from switchx.reports import results
from switchx.settings import Request, load
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import checkpoints
from tests.interop.peers import KINDS, VOCAB, peer, save, torch, transformers
from tests.interop.streams import Stream, eval_batches

RUN = (
    "--gin.MIXTURE_OR_TASK_NAME=python_docs_span_corruption",
    "--gin.TRAIN_STEPS=10",
    "--gin.DTYPE=float32",
    "--gin.VOCABULARY='bytes'",
)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
    return found


def assert_bitwise(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].view(np.uint8), array.view(np.uint8), name)


def imported(command, source: Path, model_dir: str = "run", *flags: str) -> None:
    outcome = command(
        "import", "--from=hf", f"--input={source}", f"--model_dir={model_dir}", *RUN, *flags
    )
    assert outcome.status == 0, outcome.err


def exported(command, model_dir: str, output: str, *flags: str) -> str:
    outcome = command("export", "--to=hf", f"--model_dir={model_dir}", f"--output={output}", *flags)
    assert outcome.status == 0, outcome.err
    return outcome.out


def logits(model) -> np.ndarray:
    token_BL = torch.arange(1, 9).reshape(2, 4)
    with torch.no_grad():
        return model(input_ids=token_BL, decoder_input_ids=token_BL).logits.numpy()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ul2"])
def test_there_and_back(command, tmp_path, kind):
    source, output = save(peer(kind), tmp_path / "from [1]"), tmp_path / "to * ä%41"
    imported(command, source, "a run#%41 [1]")
    exported(command, "a run#%41 [1]", output.name)
    assert_bitwise(tensors(output), tensors(source))
    there, back = (json.loads((f / "config.json").read_text()) for f in (source, output))
    ours_alone = {"expert_capacity", "dropout_rate", "router_aux_loss_coef", "router_z_loss_coef"}
    ours_alone |= {"tie_word_embeddings"}  # of T5: see hf_families.scales_logits
    if kind == "mt5":  # which is a T5 1.1 of another vocabulary
        ours_alone |= {"model_type", "architectures", "scale_decoder_outputs"}
    assert {k: v for k, v in back.items() if k not in ours_alone} == {
        k: v for k, v in there.items() if k in back and k not in ours_alone
    }

    loaded, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        output, output_loading_info=True
    )
    assert not any(report.values()), report
    assert loaded.generation_config.decoder_start_token_id == 0
    # The same numbers, but torch's products depend on how they lie in memory.
    np.testing.assert_allclose(logits(loaded), logits(peer(kind)), rtol=0, atol=1e-5)


def test_shards_on_a_mesh(command, tmp_path):
    source = save(peer("switch"), tmp_path / "source", max_shard_size="30KB")
    assert len(list(source.glob("*.safetensors"))) > 3
    imported(command, source, "run", "--gin.MESH_EXPERT=2", "--gin.MESH_MODEL=2")
    mesh = "mesh: replica 1 x data 2 x expert 2 x model 2"
    assert mesh in (tmp_path / "run/model_info.txt").read_text()
    said = exported(command, "run", "back", "--max_shard_size=30KB")
    files = sorted(file.name for file in (tmp_path / "back").glob("*.safetensors"))
    assert len(files) > 3
    assert f"{len(files)} files" in said
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all(
        sum(
            array.nbytes for array in safetensors.numpy.load_file(tmp_path / "back" / file).values()
        )
        <= 30_000
        for file in files
    )
    assert_bitwise(tensors(tmp_path / "back"), tensors(source))
    index = json.loads((tmp_path / "back/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in tensors(source).values())
    loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back")
    np.testing.assert_allclose(logits(loaded), logits(peer("switch")), rtol=0, atol=1e-5)


def test_bfloat16_out_and_in(command, tmp_path):
    source = save(peer("t5"), tmp_path / "source")
    imported(command, source)
    exported(command, "run", "half", "--dtype=bfloat16")
    half = safetensors.torch.load_file(tmp_path / "half/model.safetensors")
    for name, array in safetensors.torch.load_file(source / "model.safetensors").items():
        assert torch.equal(half[name], array.bfloat16())
    imported(command, tmp_path / "half", "again")
    exported(command, "again", "widened")
    for name, array in tensors(tmp_path / "widened").items():
        np.testing.assert_array_equal(array, half[name].float().numpy())


def test_ours_there_and_back(command, tmp_path):
    # Random parameters of ours, through transformers' own loading and saving.
    source = save(peer("switch"), tmp_path / "source")
    imported(command, source)
    exported(command, "run", "out")
    loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    imported(command, save(loaded, tmp_path / "saved"), "again")
    first, again = (restored(folder) for folder in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_a_damaged_checkpoint_is_not_exported(command, tmp_path):
    """Whatever file is gone or bit turned over: one line and no folder, or all numbers right."""
    imported(command, save(peer("t5"), tmp_path / "source"))
    exported(command, "run", "right")
    refused, unharmed = 0, 0
    newest = next((tmp_path / "run/checkpoints").iterdir())
    for file in sorted(path for path in newest.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for at in (None, len(whole) * 2 // 3) if whole else (None,):
            if at is None:
                file.unlink()
            else:
                file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            outcome = command("export", "--to=hf", "--model_dir=run", "--output=back")
            file.write_bytes(whole)
            if outcome.status == 0:
                assert_bitwise(tensors(tmp_path / "back"), tensors(tmp_path / "right"))
                shutil.rmtree(tmp_path / "back")
                unharmed += 1
                continue
            assert outcome.status in (1, 2), f"{file} {at}"
            assert outcome.err.count("\n") == 1, f"{file} {at}: {outcome.err}"
            assert not list(tmp_path.glob("*back*"))
            refused += 1
    assert min(refused, unharmed) > 5


def restored(model_dir: str, step: int | None = None):
    settings = load(Request((f"{model_dir}/config.gin",)))
    mesh = make_mesh(MeshConfig())
    return checkpoints.restore_params(Model.of(settings.run.model), model_dir, mesh, step)[0]


def test_training_goes_on_from_an_import(command, tmp_path, monkeypatch):
    source = save(peer("t5"), tmp_path / "source")
    flags = ("--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}", "--gin.BATCH_SIZE=8")
    flags += ("--gin.EVAL_STEPS=1",)
    imported(command, source, "run", "--step=8", *flags)

    monkeypatch.setattr(data, "preflight", lambda config: None)
    monkeypatch.setattr(
        data, "vocabulary", lambda config: SimpleNamespace(digest="any", size=VOCAB)
    )
    monkeypatch.setattr(data, "train_stream", lambda config, shards: Stream(shards))
    monkeypatch.setattr(data, "eval_batches", lambda config: eval_batches())
    monkeypatch.setattr(results, "show", lambda *_: None)
    outcome = command("train", "--gin_file=run/config.gin")
    assert outcome.status == 0, outcome.err
    assert "resuming from step 8" in outcome.err + outcome.out
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 10


def said(outcome) -> str:
    assert outcome.status == 2, outcome
    assert outcome.err.startswith("switchx: ")
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err


def import_refused(command, source: Path, *flags: str) -> str:
    argv = ("import", "--from=hf", f"--input={source}", "--model_dir=run", *RUN, *flags)
    line = said(command(*argv))
    assert not Path("run").exists()
    assert not list(Path().glob(".run*"))
    return line


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    return {kind: save(peer(kind), tmp_path_factory.mktemp(kind)) for kind in ("t5", "switch")}


@pytest.fixture
def copy(saved, tmp_path):
    """A saved model that the test may damage, with changes to its config.json."""

    def make(kind: str = "switch", **changes: object) -> Path:
        folder = shutil.copytree(saved[kind], tmp_path / "damaged")
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.mark.parametrize(
    ("kind", "changes", "parts"),
    [
        ("t5", {"model_type": "bert"}, ["model_type='bert'", "switch_transformers, t5, mt5"]),
        ("t5", {"dense_act_fn": "tanh"}, ["dense_act_fn='tanh'", "relu, gelu, gelu_new"]),
        ("t5", {"is_gated_act": True}, ["no tensor", "wi_0"]),
        ("t5", {"model_type": "umt5"}, ["no tensor", "block.1.layer.0.SelfAttention.relative_att"]),
        ("t5", {"num_decoder_layers": 5}, ["no tensor decoder.block.4"]),
        ("t5", {"num_decoder_layers": "2"}, ["num_decoder_layers='2'", "whole number"]),
        ("t5", {"layer_norm_epsilon": 1e-5}, ["layer_norm_epsilon=1e-05"]),
        ("t5", {"pad_token_id": 3}, ["decoder_start_token_id=0 is not pad_token_id=3"]),
        ("t5", {"pad_token_id": 400}, ["pad_token_id=400 is none of the ids 0 to 359"]),
        ("t5", {"eos_token_id": 2}, ["VOCABULARY='bytes' has padding 0 and end of sequence 1"]),
        ("t5", {"d_model": "16"}, ["d_model='16'", "whole number"]),
        ("t5", {"d_ff": 64}, ["wi.weight has the shape [32, 16]", "[64, 16]"]),
        ("t5", {"num_layers": 5, "num_decoder_layers": 5}, ["no tensor encoder.block.4"]),
        ("t5", {"num_layers": 10**15, "num_decoder_layers": 10**15}, ["no tensor encoder.block.4"]),
        ("t5", {"num_layers": 2, "num_decoder_layers": 2}, ["has a tensor", "and 4"]),
        ("switch", {"dense_act_fn": "quick_gelu"}, ["dense_act_fn='quick_gelu'", "relu, gelu"]),
        ("switch", {"router_bias": True}, ["router_bias=True"]),
        ("switch", {"router_dtype": "bfloat16"}, ["router_dtype='bfloat16'"]),
        ("switch", {"num_experts": 8}, ["no tensor", "expert_4"]),
        ("switch", {"num_experts": 2}, ["has a tensor", "expert_2"]),
        ("switch", {"encoder_sparse_step": 4}, ["no tensor", "block.3.layer.1.mlp.wi"]),
        ("switch", {"encoder_sparse_step": -1}, ["encoder_sparse_step=-1", "at least 0"]),
        ("switch", {"encoder_sparse_step": 0, "decoder_sparse_step": 0}, ["no layer has experts"]),
        ("switch", {"num_layers": 10**15}, ["num_layers=1000000000000000", "more than 10000"]),
        ("switch", {"encoder_sparse_step": 1, "decoder_sparse_step": 1}, ["no tensor", "block.0"]),
    ],
)
def test_a_config_that_is_refused(command, copy, kind, changes, parts):
    line = import_refused(command, copy(kind, **changes))
    assert all(part in line for part in parts), line


def test_stacks_with_embeddings_of_their_own(command, copy):
    folder = copy("switch", tie_word_embeddings=False)
    found = tensors(folder)
    found["lm_head.weight"] = found["shared.weight"] + 1
    found["encoder.embed_tokens.weight"] = found["shared.weight"] + 2
    safetensors.numpy.save_file(found, folder / "model.safetensors")
    line = import_refused(command, folder)
    assert "encoder.embed_tokens.weight differs from shared.weight" in line


def test_a_vocabulary_with_more_ids_than_rows(command, copy):
    folder = copy("t5", vocab_size=12)
    found = tensors(folder)
    found["shared.weight"] = found["shared.weight"][:12]
    safetensors.numpy.save_file(found, folder / "model.safetensors")
    line = import_refused(command, folder)
    assert "ModelConfig.vocab_size=12 is less than the 359 ids" in line


def test_a_tensor_that_is_not_finite(command, copy):
    folder = copy("t5")
    found = tensors(folder)
    name = "decoder.block.2.layer.1.EncDecAttention.k.weight"
    found[name][3, 5] = np.nan
    safetensors.numpy.save_file(found, folder / "model.safetensors")
    assert f"{name} holds 1 numbers that are not finite" in import_refused(command, folder)


@pytest.mark.parametrize("kept", ["shared", "decoder.embed_tokens"])
def test_the_embedding_under_one_of_its_names(command, copy, tmp_path, kept):
    """Released folders keep one of the copies, and flan-t5-xl's index names those it has not."""
    folder = copy("t5")
    found = tensors(folder)
    table = found.pop("shared.weight")
    shutil.move(folder / "model.safetensors", tmp_path / "whole")
    safetensors.numpy.save_file({**found, f"{kept}.weight": table}, folder / "part.safetensors")
    names = [
        *found,
        *(f"{name}.weight" for name in ("encoder.embed_tokens", "decoder.embed_tokens")),
    ]
    index = {"weight_map": dict.fromkeys([*names, f"{kept}.weight"], "part.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    imported(command, folder)
    exported(command, "run", "back")
    assert_bitwise(tensors(tmp_path / "back"), {**found, "shared.weight": table})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spiece.model"])
def test_a_clone_whose_large_files_were_not_fetched(command, copy, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:9f\nsize 242043056\n"
    folder = copy("t5")
    (folder / name).write_text(pointer)
    line = import_refused(command, folder)
    assert f"{name}', which is a Git LFS pointer: fetch the file" in line


def test_a_name_of_the_hub_is_no_folder(command, tmp_path):
    line = import_refused(command, Path("google/flan-t5-small"))
    assert "--input=google/flan-t5-small is not a folder" in line
    assert "from which nothing is fetched here" in line


def test_a_run_needs_no_import(command, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "run.json").write_text("{}")
    assert "is of a run of switchx, 'ours'" in import_refused(command, Path("ours"))
    assert "is of a run of switchx, 'ours'" in import_refused(command, Path("ours/checkpoints/4"))


def test_gin_that_asks_for_more_than_there_is(command, saved):
    line = import_refused(command, saved["switch"], "--gin.SwitchConfig.top_k=2")
    assert "SwitchConfig.top_k=2" in line


def test_gin_that_names_another_model(command, saved):
    line = import_refused(command, saved["switch"], "--gin.ModelConfig.d_ff=48")
    assert "ModelConfig.d_ff=48" in line
    assert "has 32" in line
    line = import_refused(command, saved["switch"], "--gin.NUM_EXPERTS=8")
    assert "NUM_EXPERTS=8" in line
    line = import_refused(command, saved["switch"], "--gin.ModelConfig.switch=None")
    assert "ModelConfig.switch=None" in line
    line = import_refused(command, saved["t5"], "--gin_file=configs/models/t5_small.gin")
    assert "ModelConfig." in line


def test_gin_that_names_the_same_model(command, saved):
    imported(command, saved["switch"], "run", "--gin.NUM_EXPERTS=4", "--gin.ModelConfig.d_ff=32")


def test_what_is_there_is_not_written_over(command, saved, tmp_path):
    (tmp_path / "run").mkdir()
    argv = ["import", "--from=hf", f"--input={saved['t5']}", "--model_dir=run", *RUN]
    assert "--model_dir='run' exists already" in said(command(*argv))
    argv[3] = "--model_dir=other"
    assert command(*argv).status == 0
    argv = ["export", "--to=hf", "--model_dir=other", "--output=run"]
    assert "--output='run' exists already" in said(command(*argv))
    within = "other/checkpoints/9"  # it would be the newest checkpoint
    assert f"--output='{within}' lies in" in said(command(*argv[:3], f"--output={within}"))
    argv = ["import", "--from=hf", f"--input={saved['t5']}", f"--model_dir={within}", *RUN]
    assert f"--model_dir='{within}' lies in" in said(command(*argv))


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "..", "a\\b", ""])
def test_an_index_that_leaves_its_folder(command, copy, name):
    folder = copy()
    shutil.move(folder / "model.safetensors", folder.parent / "x.safetensors")
    weights = {"shared.weight": name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert "is not a name of a file" in import_refused(command, folder)


@pytest.mark.parametrize(
    ("index", "part"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"a": 5}}, "no weight_map"),
        ({"weight_map": {"a": "missing"}}, "cannot be read"),
        ({"weight_map": {"a": "part"}}, "not named in"),
    ],
)
def test_an_index_that_is_wrong(command, copy, index, part):
    folder = copy()
    shutil.move(folder / "model.safetensors", folder / "part")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert part in import_refused(command, folder)


def test_files_that_are_missing_or_damaged(command, copy, tmp_path):
    assert "is not a folder" in import_refused(command, tmp_path / "nowhere")
    folder = copy()
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert "cut short" in import_refused(command, folder)
    weights.unlink()
    assert "holds neither model.safetensors" in import_refused(command, folder)
    (folder / "config.json").write_text("{")
    assert "is not JSON" in import_refused(command, folder)
    (folder / "config.json").unlink()
    assert "config.json', which is not there" in import_refused(command, folder)


def test_a_pickle_is_refused_with_the_command_that_converts_it(command, copy, monkeypatch):
    folder = copy("t5")
    expected = tensors(folder)
    (folder / "model.safetensors").unlink()
    torch.save(peer("t5").state_dict(), folder / "pytorch_model.bin")
    line = import_refused(command, folder)
    assert "that is a pickle, which may run code" in line
    cd, where, and_then, python, c, code = shlex.split(line.partition("with torch: ")[2])
    assert (cd, where, and_then, python, c) == ("cd", str(folder), "&&", "python", "-c")
    with monkeypatch.context() as here:
        here.chdir(where)
        exec(code, {})
    imported(command, folder)
    exported(command, "run", "back")
    assert_bitwise(tensors(folder.parent / "back"), expected)


def test_missing_flags(command, saved):
    assert "--from" in said(command("import", "--input=x", "--model_dir=y"))
    assert "invalid choice" in said(command("import", "--from=onnx", "--input=x"))
    assert "--model_dir is required" in said(command("import", "--from=hf", "--input=x"))
    refused = command("import", "--from=hf", f"--input={saved['t5']}", "--model_dir=y")
    assert "MIXTURE_OR_TASK_NAME is required" in said(refused)


@pytest.mark.parametrize("size", ["0", "5TB", "5.5GB", "-1", "", "GB"])
def test_a_shard_size_that_is_none(command, size):
    line = said(command("export", "--to=hf", "--output=x", f"--max_shard_size={size}"))
    assert f"--max_shard_size={size}" in line


def test_an_export_of_nothing(command, saved, tmp_path):
    assert "holds no config.gin" in said(
        command("export", "--to=hf", "--model_dir=a", "--output=b")
    )
    imported(command, saved["t5"])
    line = said(command("export", "--to=hf", "--model_dir=run", "--output=b", "--step=3"))
    assert "--step=3 is not in MODEL_DIR='run': the checkpoints there are 0" in line
    assert not (tmp_path / "b").exists()


def test_what_a_classifier_has_besides_is_left_out_by_name(command, tmp_path):
    config = peer("t5").config
    model = transformers.T5ForSequenceClassification(config)
    model.transformer.load_state_dict(peer("t5").state_dict(), strict=False)
    source = save(model, tmp_path / "classifier")
    argv = ("import", "--from=hf", f"--input={source}", "--model_dir=run", *RUN)
    outcome = command(*argv)
    assert outcome.status == 0, outcome.err
    assert "left out, since switchx has no such head: classification_head.dense.b" in outcome.out
    exported(command, "run", "back")
    assert_bitwise(tensors(tmp_path / "back"), tensors(save(peer("t5"), tmp_path / "plain")))
