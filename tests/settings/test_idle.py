"""What does nothing beside the other settings is refused where a caller gives it, not in files."""

import pytest

from switchx import configure
from switchx.errors import UserError
from switchx.settings import check_idle_of_teacher

TINY = "configs/models/tiny_switch.gin"
RUN = {"MIXTURE_OR_TASK_NAME": "t", "TRAIN_STEPS": 9, "WARMUP_STEPS": 2}


def configured(gin_files=(), **settings):
    found = configure([TINY, *gin_files], "run", **RUN, **settings)
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
