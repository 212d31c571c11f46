"""A GLUE, a SQuAD, a summarization, a closed-book and a ranking task, from files to scores."""

import dataclasses
import json

import pytest

from switchx import data
from switchx.evaluation import Scorer
from switchx.inference import DecodingConfig
from switchx.sharding import make_mesh
from switchx.training import BatchShape
from switchx.training.state import Setup
from tests.data.conftest import docs_config
from tests.data.tasks.sets import SETS, write_json, write_parquet
from tests.helpers import init
from tests.training.helpers import SMALL, run_config

pytestmark = pytest.mark.usefixtures("one_device")

FOLDERS = {
    "glue_cola_v002": "cola",
    "squad_v010_allanswers": "v1.1",
    "xsum_v110": "xsum",
    "trivia_qa_open": "unfiltered.nocontext",
    "arc_easy_v100": "ARC-Easy",
}
INPUTS, TARGETS = 64, 16


@pytest.fixture
def config(tmp_path):
    """Of a mixture of them: Parquet to train on, JSON lines to validate."""
    for task, folder in FOLDERS.items():
        (tmp_path / folder).mkdir()
        rows = SETS[task].published
        write_parquet(tmp_path / folder / "train.parquet", rows)
        write_json(tmp_path / folder / "validation.jsonl", rows)
    return docs_config(
        mixture_or_task_name="one_of_each",
        task_module="tests.data.paper_mixture",
        task_files={s: f"{tmp_path}/{{config}}/{s}.*" for s in ("train", "validation")},
        vocabulary="bytes",
        feature_lengths={"inputs": INPUTS, "targets": TARGETS},
    )


def scores_of(config, model_dir):
    """What a model's answers are worth, by task; the answers are written."""
    words = data.vocabulary(config)
    shape = BatchShape(8, INPUTS, TARGETS, 1)
    run = run_config(**SMALL, vocab_size=words.size)
    run = dataclasses.replace(run, batch=shape, eval_batch=shape)
    said, tasks = [], data.graded_tasks(config)
    setup, decoding = Setup.of(run, make_mesh(run.mesh)), DecodingConfig(TARGETS, batch_size=8)
    scorer = Scorer(setup, tasks, decoding, words.eos_id, {}, str(model_dir), said.append)
    return dict(scorer(init(run.model), 1))


def lines_of(folder, task):
    text = (folder / f"run/predictions/{task}/1.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_one_task_of_each_kind_from_files_to_scores(config, tmp_path):
    from t5.data.glue_utils import GLUE_METRICS
    from t5.evaluation import metrics

    data.preflight(config, ["train"])
    found = scores_of(config, tmp_path / "run")
    tasks = {task: task for task in FOLDERS} | {"arc_easy_v100": "arc_easy_v100_score_eval"}
    lines = {task: lines_of(tmp_path, task) for task in tasks.values()}
    for task, of in lines.items():
        choices = 3 if task.endswith("_score_eval") else 1
        assert len(of) == len(SETS[task.removesuffix("_score_eval")].published) * choices
    functions = {
        "glue_cola_v002": GLUE_METRICS["cola"][0],
        "squad_v010_allanswers": metrics.squad,
        "xsum_v110": metrics.rouge,
        "trivia_qa_open": metrics.trivia_qa,
    }
    for task, function in functions.items():
        targets, answers = ([line[of] for line in lines[task]] for of in ("target", "prediction"))
        for name, value in function(targets, answers).items():
            assert found[task][name] == pytest.approx(value), task
    assert lines["squad_v010_allanswers"][0]["target"] == ["Lourdes", "in Lourdes"]
    ranked = max(lines["arc_easy_v100_score_eval"], key=lambda line: line["score"])
    accuracy = found["arc_easy_v100_score_eval"]["accuracy"]
    assert accuracy == 100 * ranked["target"][1]
