"""What does nothing beside the other settings is refused where a caller gives it, not in files."""

import dataclasses

import pytest

from switchx import configure
from switchx.data.prepared.set_plan import SetInfo, SetPlan
from switchx.errors import UserError
from switchx.settings import check_idle_of_teacher
from switchx.settings.idle import check_idle_of_set

TINY = "configs/models/tiny_switch.gin"
TASK = "MIXTURE_OR_TASK_NAME"
DOCS = {TASK: "python_docs_span_corruption"}
RUN = {TASK: "t", "TRAIN_STEPS": 9, "WARMUP_STEPS": 2}


def configured(gin_files=(), **settings):
    found = configure([TINY, *gin_files], "run", **{**RUN, **settings})
    check_idle_of_teacher(found)
    return found


@pytest.mark.parametrize(
    ("idle", "without"),
    [
        ({"START_NOISE": 0.5}, {"START_FROM": "runs/a"}),
        ({"START_FEED_FORWARDS": "mean"}, {"START_FROM": "runs/a"}),
        ({"DECAY_SHARE": 0.5}, {"SCHEDULE": "wsd"}),
        ({"MAX_ROLLBACKS": 9}, {"ON_BAD_LOSS": "skip"}),
        ({"NUM_BEAMS": 2}, {"DECODING_METHOD": "beam"}),
        ({"ScoreConfig.top_k": 5}, {"DECODING_METHOD": "sample"}),
        ({"OptimizerConfig.beta1": 0.5}, {"OPTIMIZER": "muon"}),
        ({"OptimizerConfig.momentum": 0.5, "OPTIMIZER": "adamw"}, {"OPTIMIZER": "adafactor"}),
        (
            {"SwitchConfig.jitter": 0.5, "SwitchConfig.exploration": "sample"},
            {"SwitchConfig.exploration": "jitter"},
        ),
        ({"TRAIN_CAPACITY_FACTOR": 1.0, "DISPATCHER": "ragged"}, {"RAGGED_POOLS": 2}),
        ({"EVAL_CAPACITY_FACTOR": 1.0, "DISPATCHER": "ragged"}, {"DISPATCHER": "index"}),
        ({"PREPARED_CACHE_GB": 5.0}, {"PREPARED_DIR": "gs://bucket/sets"}),
        ({"PREPARED_CACHE_GB": 5.0, "PREPARED_DIR": "sets"}, {"PREPARED_DIR": "s3://bucket/sets"}),
        ({"C4_JSON_VALIDATION": "a", **DOCS}, {TASK: "c4_json_span_corruption"}),
        ({"C4_JSON_TRAIN": "a", TASK: "text_files_ul2"}, {TASK: "mine"}),
        ({"TEXT_FIELD": "a", **DOCS}, {TASK: "c4_json_ul2"}),
        (
            {"TEXT_FIELD": "a", TASK: "mc4_en_span_corruption"},
            {TASK: "mc4_json_en_span_corruption"},
        ),
        ({"TFDS_DATA_DIR": "a", **DOCS}, {TASK: "squad_v010_allanswers"}),
        ({"TFDS_DATA_DIR": "a", TASK: "c4_json_ul2"}, {TASK: "c4_v310_ul2"}),
        (
            {"TFDS_DATA_DIR": "a", "MIXTURE_TASKS": {"c4_json_span_corruption": 1}},
            {"MIXTURE_TASKS": {"c4_json_span_corruption": 1, "c4_v310_span_corruption": 2}},
        ),
        ({"TEACHER_SHARE": 0.5}, {"OBJECTIVE": "distill", "TEACHER": "runs/a"}),
        ({"TEACHER_TOP_K": 5}, {"OBJECTIVE": "distill", "TEACHER_LOGITS": "a"}),
    ],
    ids=lambda settings: "-".join(settings),
)
def test_idle_settings(idle, without, tmp_path):
    (name, value), *_ = idle.items()
    with pytest.raises(
        UserError, match=rf"^{name}={value!r} does nothing with .*: leave it out, or"
    ):
        configured(**idle)
    configured(**{**idle, **without})
    file = tmp_path / "my.gin"
    file.write_text("".join(f"{name} = {value!r}\n" for name, value in idle.items()))
    configured([str(file)])


def test_a_default_may_be_said():
    configured(DECAY_SHARE=0.1, START_STEP=0, NUM_BEAMS=4)


@pytest.fixture
def prepared(tmp_path):
    """The settings of a set made of /a/t-0.json, as far as set.json goes."""
    lengths = {"inputs": 64, "targets": 16}
    plan = SetPlan(
        "task_files", lengths, "v", 359, 1, None, 0, 0, (True, True), False, {"train": 0}
    )
    made_of = {"train": {"/a/t-0.json": [9, None], "gs://b/u.json": [9, "hash"]}}
    for task in ("task_files", "c4_json_span_corruption", "text_files_ul2"):
        made = SetInfo(dataclasses.replace(plan, task=task), {"train": []}, made_of)
        (tmp_path / task).mkdir()
        (tmp_path / task / "set.json").write_text(made.text())
    return {"PREPARED_DIR": str(tmp_path), "TASK_FEATURE_LENGTHS": lengths}


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [
        ("c4_json_span_corruption", "C4_JSON_TRAIN", "{}"),
        ("text_files_ul2", "TEXT_FILES", {"train": "{}"}),
        ("task_files", "TASK_FILES", {"train": "{}"}),
    ],
)
def test_other_files_than_a_prepared_set_was_made_of(prepared, task, name, value):
    def asked(glob):
        given = value.format(glob) if isinstance(value, str) else {"train": glob}
        settings = configured(**prepared, **{TASK: task, name: given})
        check_idle_of_set(settings)

    for other in ("/a/v-0.json", "/b/t-*.json", "gs://b/t-0.json"):
        with pytest.raises(UserError, match=rf"^{name}=.* nothing with .* made of '/a/t-0.json': "):
            asked(other)
    for same in ("/a/t-0.json", "/a/../a/t-*", "file:///a/t-0.json", "gs://b/{config}.json"):
        asked(same)


def test_a_set_that_is_not_there_is_missed_elsewhere(prepared):
    gone = {**prepared, "PREPARED_DIR": "absent", TASK: "c4_json_span_corruption"}
    check_idle_of_set(configured(**gone, C4_JSON_TRAIN="/b/t"))
