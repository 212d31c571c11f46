"""START_FROM, from the command: a run that begins with another's checkpoint."""

import json
import re

import jax
import numpy as np
import pytest

from switchx import Run
from switchx.training.adapting import named
from switchx.training.run_reader import metric_rows
from tests.conftest import SMALL

pytestmark = pytest.mark.usefixtures("one_device", "nothing_shown")


@pytest.fixture
def flags(trained, tmp_path):
    """Of a run of other data order that starts from `trained`."""
    start = f"--gin.START_FROM={trained.run}"
    files = [
        f"--gin.C4_JSON_{s.upper()}={trained.folder}/{s}.jsonl" for s in ("train", "validation")
    ]
    return ["train", f"--model_dir={tmp_path}/tuned", "--gin.SEED=1", start, *SMALL, *files]


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_it_goes_on_behind_the_other_run(trained, tmp_path, flags, command):
    """Its schedule too, with the optimizer's state; then as itself, though that run is gone."""
    more = ["--gin.START_STEP=continue", "--gin.START_OPTIMIZER=True", "--gin.TRAIN_STEPS=2"]
    more.append("--gin.FREEZE=('experts',)")
    tuned, base = tmp_path / "tuned", tmp_path / "base"
    base.symlink_to(trained.run)
    flags = [f.replace(str(trained.run), str(base)) for f in flags]
    outcome = command(*flags, *more)
    assert outcome.status == 0, outcome.err
    said = outcome.err + outcome.out
    assert "2 steps to train: from step 4 to 6" in said
    assert re.search(r" parameters, [\d,]+ of them trained \([\d.]+%\), frozen: experts; ", said)
    assert "parameters taken from there" in said
    record = json.loads((tuned / "start.json").read_text())
    assert (record["from"], record["checkpoint"], record["step"]) == ("run", 4, 4)
    assert record["optimizer"] == "continued"
    assert [row["step"] for row in metric_rows(tuned) if row["split"] == "train"] == [5, 6]
    before = Run(tuned).params
    there, found = named(Run(trained.run).params), named(before)
    stayed = {name for name in found if np.array_equal(there[name], found[name])}
    assert stayed == {name for name in found if "/experts/" in name}
    base.unlink()
    assert command(*flags, *more).status == 0  # done already: nothing is read of the other run
    assert same(Run(tuned).params, before)
    outcome = command(*flags, *more, f"--gin.START_FROM={trained.run}")
    assert outcome.status == 2
    assert f"the run in MODEL_DIR='{tuned}' began with '{base}', and goes on" in outcome.err


def test_the_first_state_is_the_others_to_the_bit(trained, tmp_path, flags, monkeypatch):
    from switchx.api.starting import beginning
    from switchx.cli.flags import rewrite_gin_flags
    from switchx.settings import Request, load, read_flag
    from switchx.sharding import make_mesh
    from switchx.training.state import Setup

    bindings = [f.removeprefix("--gin_bindings=") for f in rewrite_gin_flags(flags[2:])]
    more = ("TRAIN_STEPS=1", "START_CHECKPOINT=2")
    request = Request(
        bindings=tuple(map(read_flag, [*bindings, *more])), model_dir=str(tmp_path / "new")
    )
    begins = beginning(load(request))
    assert begins.warm.first_step == 0
    began = begins.warm.begin(Setup.of(begins.run, make_mesh(begins.run.mesh)))
    assert same(began.state.params, Run(trained.run, step=2).params)
    assert not same(began.state.params, Run(trained.run).params)
    assert int(began.state.step) == 0
    assert began.record["optimizer"] == "fresh"


OPTIMIZER_TOO = "--gin.START_OPTIMIZER=True"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--gin.START_FROM=absent"], "START_FROM='absent' holds no checkpoint"),
        (["--gin.START_FROM=tuned"], "START_FROM='tuned' is of MODEL_DIR itself"),
        (["--gin.OBJECTIVE=distill", "--gin.TEACHER=tuned"], "TEACHER='tuned' is of MODEL_DIR its"),
        (["--gin.START_CHECKPOINT=3"], "the checkpoints there are 2, 4"),
        (["--gin.START_CHECKPOINT=last"], "START_CHECKPOINT='last' is not one of newest, best"),
        (["--gin.START_STEP=7"], "START_STEP=7 must be 0 or 'continue'"),
        (["--gin.ModelConfig.d_ff=64"], "only experts, layers and vocabulary may differ"),
        (["--gin.NUM_EXPERTS=4"], "START_EXPERTS"),
        (["--gin.START_CHANGES=('heads',)"], "'heads' is not one of experts, layers, vocabulary"),
        (
            ["--gin.NUM_EXPERTS=16", "--gin.START_CHANGES=('experts',)", OPTIMIZER_TOO],
            "START_OPTIMIZER=True needs a model of the same shapes",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    changed, says, flags, command, tmp_path
):
    outcome = command(*flags, "--gin.TRAIN_STEPS=1", *changed)
    assert outcome.status == 2
    assert says in outcome.err
    assert not (tmp_path / "tuned").exists()
