"""A profile of some steps: its trace, read again; what is refused; and that it changes nothing."""

import dataclasses
import re

import jax
import pytest

from switchx.errors import UserError
from switchx.training import train
from switchx.training.profile import ProfileSteps
from switchx.training.profile_costs import STEP, Costs, part_of
from tests.training.helpers import SMALL, SWITCH, assert_same_end, feed, run_config

# Both kinds of feed-forward in the one layer of each stack.
BOTH = dataclasses.replace(SWITCH, extra_dense=True)
WITH_EXPERTS = {**SMALL, "switch": BOTH, "train_steps": 4}
pytestmark = pytest.mark.usefixtures("one_device")


def go(directory, profile_steps=None, **changes):
    run = run_config(**{**WITH_EXPERTS, **changes})
    train(run, str(directory), feed(), "# none\n", profile_steps=profile_steps)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory, one_device):
    """A run of four steps of which the middle two are traced."""
    directory = tmp_path_factory.mktemp("profiled")
    go(directory, ProfileSteps(2, 3))
    return directory


def traced_steps(trace):
    """The numbers of the annotated steps, in their order."""
    lines = jax.profiler.ProfileData.from_file(str(trace)).find_plane_with_name("/host:CPU").lines
    marked = [event for line in lines for event in line.events if event.name == STEP]
    return [int(dict(e.stats)["step_num"]) for e in sorted(marked, key=lambda e: e.start_ns)]


def test_a_trace_has_the_steps_that_were_asked_for(profiled):
    """It lies where TensorBoard's plugin looks."""
    (trace,) = profiled.glob("profile/plugins/profile/*/host_0.xplane.pb")
    assert traced_steps(trace) == [2, 3]
    (folder,) = profiled.glob("profile/plugins/profile/*")
    names = {path.name for path in folder.iterdir()}
    assert names == {"costs.txt", "host_0.trace.json.gz", trace.name, "train_step.hlo.txt"}


def test_the_costs_name_the_parts_of_the_step(profiled):
    (costs,) = profiled.glob("profile/plugins/profile/*/costs.txt")
    head, *rows = costs.read_text().splitlines()
    assert head.startswith("profile of 2 steps: ")
    assert 0 < float(re.search(r"([\d.]+)% of which", head)[1]) <= 100
    parts = {row.split()[0] for row in rows[1 : rows.index("")]}
    expected = {"attention", "cross_attention", "feed_forward", "router", "dispatch", "experts"}
    assert expected | {"combine", "optimizer", "logits", "embedding"} <= parts


def test_the_run_is_bitwise_the_one_without_a_profile(profiled, tmp_path):
    go(tmp_path)
    assert_same_end(profiled, tmp_path, run_config(**WITH_EXPERTS))
    assert not (tmp_path / "profile").exists()


def test_a_resume_within_the_steps_traces_the_rest(tmp_path, capfd):
    go(tmp_path, train_steps=2)
    go(tmp_path, ProfileSteps(1, 3))
    (trace,) = tmp_path.glob("profile/plugins/profile/*/host_0.xplane.pb")
    assert traced_steps(trace) == [3]
    assert f"see it by `tensorboard --logdir={tmp_path}/profile`" in capfd.readouterr().err


def test_what_cannot_be_written_ends_no_run(tmp_path, capfd):
    (tmp_path / "profile").write_text("in the way")
    go(tmp_path, ProfileSteps(1, 1), train_steps=2)
    assert "there is no profile: " in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "10", "3:2", "-1:2", "0:2", "1:2:3", "a:b", "1.5:2", "٣:٤"])
def test_what_says_no_steps_is_refused(text):
    with pytest.raises(UserError, match=rf"--profile_steps={re.escape(text)} must be FIRST:LAST"):
        ProfileSteps.parse(text)


def test_steps_that_do_not_come_are_refused():
    steps = ProfileSteps.parse("10:15")
    steps.check(train_steps=15, done=14)
    with pytest.raises(UserError, match="--profile_steps=10:15 goes beyond TRAIN_STEPS=14:"):
        steps.check(train_steps=14, done=0)
    with pytest.raises(
        UserError, match=r"--profile_steps=10:15 lies before step 15, .* from 16 to"
    ):
        steps.check(train_steps=20, done=15)


def xspace(*events, plane="/host:CPU"):
    """A part of a trace's file: events are (line, name, start and duration in us, stats)."""
    names = sorted({name for _, name, *_ in events})
    stats = sorted({stat for *_, said in events for stat in said})
    lines = {}
    for line, name, start, duration, said in events:
        values = "".join(
            f"stats {{metadata_id: {stats.index(stat) + 1} str_value: '{value}'}}"
            for stat, value in said.items()
        )
        times = f"offset_ps: {start * 10**6} duration_ps: {duration * 10**6}"
        lines.setdefault(line, []).append(
            f"events {{metadata_id: {names.index(name) + 1} {times} {values}}}"
        )
    text = [f"planes {{name: '{plane}'"]
    text += [f"lines {{name: '{line}' {' '.join(of)}}}" for line, of in lines.items()]
    for kind, words in (("event", names), ("stat", stats)):
        text += [
            f"{kind}_metadata {{key: {n} value {{id: {n} name: '{word}'}}}}"
            for n, word in enumerate(words, start=1)
        ]
    return jax.profiler.ProfileData.text_proto_to_serialized_xspace(" ".join([*text, "}"]))


PROGRAM = """HloModule jit_training_step, is_scheduled=true
  %dot.1 = f32[2] dot(%a, %b), metadata={op_name="jit(f)/jvp(encoder)/while/body/router/dot"}
  ROOT add = f32[2] add(%a, %b), metadata={op_name="jit(f)/transpose(jvp(decoder))/add"}
"""


def test_costs_are_summed_by_operation_and_part(tmp_path):
    """Two steps in 30 us with a pause of 10: a product of 6, another operation twice 2, 1 shared.

    What encloses them, and what another program ran, is not counted.
    """
    ours = {"hlo_module": "jit_training_step"}
    of = lambda name: {"hlo_op": name, **ours}  # noqa: E731
    trace = tmp_path / "trace"
    trace.write_bytes(
        xspace(
            ("python", STEP, 0, 10, {}),
            ("python", STEP, 20, 10, {}),
            ("python", "pause: saving", 10, 10, {}),
            ("pool", "dot.1", 1, 6, of("dot.1")),
            ("pool", "add", 22, 2, of("add")),
            ("other pool", "add", 23, 2, of("add")),
            ("pool", "while.1", 0, 30, of("while.1")),
            ("pool", "dot.1", 11, 8, {"hlo_op": "dot.1", "hlo_module": "jit_evaluation_step"}),
        )
    )
    found = Costs.read(trace, PROGRAM, devices=1)
    assert (found.steps, found.step_seconds) == (2, pytest.approx(10e-6))
    assert found.busy == pytest.approx(9 / 20)
    assert found.parts["router"] == pytest.approx((3e-6, 0))
    assert found.parts["decoder"] == pytest.approx((0, 2e-6))
    assert list(found.operations) == ["dot.1", "add"]
    assert found.operations["add"] == (pytest.approx(2e-6), 1.0, "decoder")
    assert "  60.0%  " in next(line for line in found.lines() if line.startswith("dot.1"))


@pytest.mark.parametrize(
    ("line", "name"), [("XLA Ops", "%dot.1 = f32[2] dot"), ("Stream #1", "dot.1")]
)
def test_operations_of_accelerators(line, name, tmp_path):
    """What else their planes have, such as whole programs, encloses these."""
    ran = [(line, name, 1, 6, {}), ("XLA Modules", "jit_training_step", 0, 10, {})]
    steps, device = xspace(("python", STEP, 0, 10, {})), xspace(*ran, plane="/device:ANY:0")
    (tmp_path / "trace").write_bytes(steps + device)
    found = Costs.read(tmp_path / "trace", PROGRAM, devices=1)
    assert {name: cost[0] for name, cost in found.operations.items()} == {
        "dot.1": pytest.approx(6e-6)
    }


def test_a_trace_without_steps_is_said(tmp_path):
    (tmp_path / "trace").write_bytes(xspace(("python", "else", 0, 1, {})))
    with pytest.raises(ValueError, match="no steps"):
        Costs.read(tmp_path / "trace", PROGRAM, devices=1)


def test_the_innermost_scope_is_the_part():
    assert part_of("jit(f)/transpose(jvp(encoder))/while/body/router/mul") == "router"
    assert part_of("jit(f)/jvp(encoder)/mul") == "encoder"
    assert part_of("jit(f)/mul") == "other"
