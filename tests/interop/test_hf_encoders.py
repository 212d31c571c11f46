"""Encoders alone from transformers' folders and back: T5EncoderModel, and Switch's."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import switchx
from switchx.interop.hf import open_source
from switchx.model import NO_NOISE, Groupings, Model
from tests.inference.helpers import log_softmax
from tests.interop.peers import abstract, peer, roomy, save, torch, transformers
from tests.interop.test_hf_command import RUN, assert_bitwise, exported, tensors
from tests.interop.test_hf_logits import ATOL, tokens

ENCODERS = {
    "t5_1_1": transformers.T5EncoderModel,
    "switch": transformers.SwitchTransformersEncoderModel,
}
MASKED = (
    *RUN,
    "--gin.MIXTURE_OR_TASK_NAME=python_docs_masked_lm",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
)


def encoder_of(kind):
    """The encoder of a model of both stacks, with its weights."""
    whole = peer(kind)
    model = ENCODERS[kind](whole.config)
    assert not model.load_state_dict(whole.state_dict(), strict=False).missing_keys
    return model.eval()


@pytest.mark.parametrize("kind", ENCODERS)
def test_hidden_states_agree_and_the_folder_comes_back(command, tmp_path, kind):
    model, (token_BL, _) = encoder_of(kind), tokens("right")
    folder = save(model, tmp_path / "theirs")
    source = open_source(str(folder))
    assert source.config.encoder_alone
    mine = Model.of(roomy(source.config))
    groupings = Groupings.of(mine.config.switch, train=False)

    def encode(params):
        return mine.bind(params).encode(token_BL, groupings.encoder, NO_NOISE)[0]

    found = np.asarray(jax.jit(encode)(source.params(abstract(mine))))
    with torch.no_grad():
        mask = torch.tensor(token_BL > 0).long()
        output = model(input_ids=torch.tensor(token_BL).long(), attention_mask=mask)
    expected, real = output.last_hidden_state.numpy(), token_BL > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=ATOL)

    groups = ["--gin.ENCODER_GROUP_SIZE=8"] if mine.config.switch else []
    came = command("import", "--from=hf", f"--input={folder}", "--model_dir=run", *MASKED, *groups)
    assert came.status == 0, came.err
    exported(command, "run", "back")
    assert_bitwise(tensors(tmp_path / "back"), tensors(folder))
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (written["num_decoder_layers"], written["is_encoder_decoder"]) == (0, False)
    assert written["architectures"] == [type(model).__name__]
    loaded, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        again = loaded(input_ids=torch.tensor(token_BL).long(), attention_mask=mask)
    np.testing.assert_allclose(again.last_hidden_state.numpy(), expected, rtol=0, atol=1e-5)


def test_logits_of_their_own_come_back(command, tmp_path):
    """T5EncoderModel has none: another name in the folder, which it leaves aside."""
    folder = save(encoder_of("t5_1_1"), tmp_path / "theirs")
    own = tensors(folder) | {"lm_head.weight": tensors(folder)["shared.weight"][::-1].copy()}
    safetensors.numpy.save_file(own, folder / "model.safetensors")
    assert not open_source(str(folder)).config.tied_embeddings
    came = command("import", "--from=hf", f"--input={folder}", "--model_dir=run", *MASKED)
    assert came.status == 0, came.err
    exported(command, "run", "back")
    assert_bitwise(tensors(tmp_path / "back"), own)
    _, report = transformers.T5EncoderModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert set(report["unexpected_keys"]) == {"lm_head.weight"}
    assert not report["missing_keys"]

    # Asked: one token for each blank, and what no encoder does is refused by its flag.
    (tmp_path / "in").write_text('{"text": "a __ b"}\n{"text": "__, __"}\n')
    answered = command("infer", "--model_dir=run", "--input=in")
    assert answered.status == 0, answered.err
    lines = [json.loads(line) for line in answered.out.splitlines()]
    assert [len(line["blanks"]) for line in lines] == [1, 2]
    refused = command("infer", "--model_dir=run", "--input=in", "--method=beam")
    assert refused.status == 2
    assert "--method=beam is for what a decoder writes" in refused.err
    run = switchx.Run(tmp_path / "run")
    choices = ["<extra_id_0>x", "<extra_id_0>yz"]
    scores_B = run.score(["a __ b"] * 2, choices)
    for choice, score in zip(choices, scores_B, strict=True):
        text = choice.removeprefix("<extra_id_0>")
        logp_LV = log_softmax(run.logits("a __ b", choice))
        tokens_of = run.vocabulary.encode(f"a {text} b")
        at = range(2, 2 + len(text))
        np.testing.assert_allclose(score, sum(logp_LV[i, tokens_of[i]] for i in at), rtol=1e-5)
