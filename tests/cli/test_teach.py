"""switchx data teach, and a student that reads what it wrote: as typed, and its mistakes."""

import json
import shutil

import pytest

from switchx.cli.main import main
from switchx.training.checkpoints import reading
from tests.conftest import SMALL
from tests.data.taught.made import prepared_set

pytestmark = pytest.mark.usefixtures("one_device")

STUDENT = ["--gin.OBJECTIVE=distill", "--gin.TEACHER_LOGITS=t", "--gin.TEACHER_TOP_K=8"]
DOCS = "--gin.MIXTURE_OR_TASK_NAME=python_docs_span_corruption"
STEPS = ["--gin.TRAIN_STEPS=2"]


@pytest.fixture(scope="module")
def taught(trained, tmp_path_factory):
    """The flags of a set that the shared run wrote logits for, 2 steps of 8 examples."""
    folder = tmp_path_factory.mktemp("taught")
    prepared_set(folder / "sets")
    flags = [*SMALL, f"--gin.PREPARED_DIR={str(folder / 'sets')!r}", "--gin.METRIC_WRITERS=()"]
    assert main(["data", "teach", f"--gin.TEACHER={trained.run}", *STUDENT, *STEPS, *flags]) == 0
    return folder, flags


def _spied(call, seen):
    return lambda *args: seen.append(args) or call(*args)


def test_the_student_reads_them_and_no_teacher(taught, trained, monkeypatch, capsys):
    folder, flags = taught
    restored = []
    spied = _spied(reading.restore_params_to, restored)
    monkeypatch.setattr(reading, "restore_params_to", spied)
    where = f"--model_dir={folder / 'student'}"
    assert main(["train", *STUDENT, *STEPS, *flags, where]) == 0
    assert {str(where) for _, _, where, *_ in restored} == {str(folder / "student")}
    assert "learning from step 4 of" in capsys.readouterr().err
    rows = [json.loads(line) for line in (folder / "student/metrics.jsonl").open()]
    assert all(("teacher_kl" in row) == (row["split"] == "train") for row in rows)
    assert json.loads((folder / "student/start.json").read_text())["teacher"]["step"] == 4
    assert main(["data", "show", "--count=1", *STUDENT, *flags]) == 0
    assert "  teacher's, 14 tokens\n" in capsys.readouterr().out
    assert main(["data", "check", *flags]) == 1  # of the set it has no SHA-256
    assert any(line.split()[:1] == ["t"] for line in capsys.readouterr().out.splitlines())
    again = ["data", "teach", f"--gin.TEACHER={trained.run}", *STUDENT, *STEPS, *flags]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("sets/*/taught/t/*")}
    assert main(again) == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("sets/*/taught/t/*")}


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("TEACHER_TOP_K=9", "TEACHER_TOP_K=9, but the logits TEACHER_LOGITS='t' were written with"),
        ("TEACHER_TOP_K=0", "TEACHER_TOP_K=0 must be a whole number of at least 1"),
        ("TEACHER_TOP_K=500", "TEACHER_TOP_K=500 is more than ModelConfig.vocab_size=384"),
        ("SEED=1", "SEED=1, but the logits TEACHER_LOGITS='t' were written with 0"),
        ("TRAIN_STEPS=3", "TRAIN_STEPS=3 of BATCH_SIZE=8 take 24 examples, and TEACHER_LOGITS='t'"),
        ("TEACHER='RUN/checkpoints/2'", "(step 2)', but the logits"),
        ("TEACHER_LOGITS=u", "holds no logits of that name for 'c4_json_span_corruption'"),
        ("TEACHER_LOGITS='a/b'", "TEACHER_LOGITS='a/b' cannot name a folder beside"),
        ("PREPARED_DIR=None " + DOCS, "lies beside a prepared set, and PREPARED_DIR is not set"),
        ("PREPARED_DIR='OTHER'", "were written with 'SETS': set that, or give"),
        ("PREPARED_DIR='EMPTY'", "holds no prepared set of 'c4_json_span_corruption'"),
        ("OBJECTIVE=pretraining", "TEACHER_LOGITS='t' does nothing with OBJECTIVE='pretraining'"),
    ],
)  # fmt: skip
def test_a_student_of_other_logits_is_refused(taught, trained, flag, says, tmp_path, capsys):
    folder, flags = taught
    if "OTHER" in flag:
        prepared_set(tmp_path / "other", seed=1)
        shutil.copytree(
            folder / "sets/c4_json_span_corruption/taught",
            tmp_path / "other/c4_json_span_corruption/taught",
        )
    names = {"RUN": trained.run, "OTHER": tmp_path / "other", "EMPTY": tmp_path / "empty"}
    for name, path in names.items():
        flag = flag.replace(name, str(path))
    where = f"--model_dir={tmp_path / 'student'}"
    assert main(["train", *STUDENT, *STEPS, *flags, where, *f"--gin.{flag}".split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says.replace("SETS", str(folder / "sets")) in line
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("TEACHER_LOGITS=None", "TEACHER_LOGITS is not set: give the logits a name"),
        ("TEACHER=None", "OBJECTIVE='distill' needs TEACHER"),
        ("PREPARED_DIR=None", "PREPARED_DIR is not set: give the folder of the prepared set"),
        ("TEACHER_TOP_K=500", "TEACHER_TOP_K=500 is more than ModelConfig.vocab_size=384"),
        ("TEACHER_DTYPE=bfloat16", "TEACHER_DTYPE='bfloat16', but the logits TEACHER_LOGITS='t'"),
        ("TRAIN_STEPS=2000000000", "GB free, and the logits take about"),
    ],
)
def test_mistakes_of_a_teacher(taught, trained, flag, says, capsys):
    _, flags = taught
    given = [f"--gin.TEACHER={trained.run}", *STUDENT, *STEPS, *flags, f"--gin.{flag}"]
    assert main(["data", "teach", *given]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
