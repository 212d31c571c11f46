"""A refusal names the file and line at fault, and where a value was set that nobody typed here."""

import pytest

from switchx.errors import UserError
from tests.settings.test_loading import DENSE, STEPS, TASK, TINY, settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(*argv):
    with pytest.raises(UserError) as caught:
        settings(*argv)
    return str(caught.value)


def outer(tmp_path, inner):
    """A gin file in a folder of its own, which includes one beside it."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far/outer.gin").write_text("SEED = 1\ninclude 'inner.gin'\n")
    (tmp_path / "far/inner.gin").write_text(inner)
    return "--gin_file=far/outer.gin"


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("SEED = 1\nBATCH_SIZE 8\n", "far/inner.gin line 2 is not valid gin"),
        (
            "SEED = 1\nVOCABULARY = Bytes\n",
            "far/inner.gin line 2 is not valid gin (Bytes is no value: write 'Bytes' for a text,",
        ),
        (
            "VOCABULARY = \u201cbytes\u201d\n",
            "line 1 is not valid gin ('\u201c' is of a text processor",
        ),
        ("\nTRAIN_STEP = 5\n", "far/inner.gin line 2: nothing uses TRAIN_STEP"),
        ("ModelConfig.dmodel = 5\n", "far/inner.gin line 1: ModelConfig has no parameter"),
        (
            "\n\nBATCH_SIZE = 'x'\n",
            "BATCH_SIZE='x' must be a whole number. (BATCH_SIZE: far/inner.gin line 3.)",
        ),
        ("include 'gone.gin'\n", "include 'gone.gin' (far/inner.gin line 1) was not found"),
    ],
)
def test_a_mistake_in_an_included_file(tmp_path, inner, said):
    assert said in refusal(DENSE, outer(tmp_path, inner), TASK, STEPS)


def test_an_include_is_looked_for_beside_its_file_first(tmp_path):
    file = outer(tmp_path, "SEED = 7\n")
    (tmp_path / "inner.gin").write_text("SEED = 8\n")
    assert settings(DENSE, file, TASK, STEPS).data.seed == 7
    (tmp_path / "far/inner.gin").unlink()
    assert settings(DENSE, file, TASK, STEPS).data.seed == 8


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "my.gin").write_bytes(b"\xef\xbb\xbfSEED = 3\n")
    assert settings(DENSE, "--gin_file=my.gin", TASK, STEPS).data.seed == 3


def test_a_value_that_was_never_typed_says_where_it_was_set(tmp_path):
    (tmp_path / "my.gin").write_text("\nDTYPE = 'bf16'\n")
    said = refusal(TINY, "--gin_file=my.gin", TASK, STEPS)
    assert "DTYPE='bf16'" in said
    assert said.endswith(". (DTYPE: my.gin line 2.)")


def test_a_value_that_was_typed_says_no_more():
    assert refusal(TINY, TASK, STEPS, "--gin.DTYPE=bf16").endswith(".")


def test_later_refusals_are_explained_too():
    explained = settings(TINY, TASK, STEPS, "--gin.MESH_DATA=4").gin.explained
    said = "BATCH_SIZE=128 must be a multiple of EVAL_STEPS=20, as --gin.BATCH_SIZE=100 is."
    assert explained(said) == f"{said} (BATCH_SIZE, EVAL_STEPS: default in configs/base.gin.)"
    for typed in ("BATCH_SIZE=128 must be a multiple of MESH_DATA=4.", "Give BATCH_SIZE=64."):
        assert explained(typed) == typed
    assert "tiny_switch.gin line" in explained("NUM_EXPERTS=8 must be below MESH_DATA=4.")
