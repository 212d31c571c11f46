"""`switchx sweep report` over a made-up sweep whose answers are known."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from switchx.cli.main import main
from tests.reports.conftest import SPEEDS, make_sweep
from tests.reports.made_up import loss, make_run

PNG = b"\x89PNG\r\n\x1a\n"


def test_speed_ups_and_losses_are_those_of_the_law(sweep):
    assert sweep.status == 0
    groups = {group["name"]: group for group in sweep.document["groups"]}
    assert list(groups) == ["dense", "4 experts", "16 experts"]
    # Width 16, feed-forwards of 32 and one router in each of two layers.
    dense, sparse = groups["dense"], groups["4 experts"]
    assert sparse["parameters_per_token"] == dense["parameters"] + 2 * 16 * 4
    assert sparse["parameters_of_layers"] == dense["parameters"]
    assert sparse["parameters"] == sparse["parameters_per_token"] + 2 * 3 * (2 * 16 * 32)
    assert sparse["tokens_per_step"] == 8 * (64 + 32)
    both = (loss(1000, SPEEDS[16]) + loss(1000, SPEEDS[16] * 1.1)) / 2
    assert groups["16 experts"]["final_loss"]["mean"] == pytest.approx(both, abs=1e-5)
    assert groups["16 experts"]["final_loss"]["seeds"] == 2
    for found, experts in zip(sweep.document["speed_ups"], (4, 16), strict=True):
        # Evaluations are 50 steps apart, and the law is no line between them.
        assert found["steps"]["mean"] == pytest.approx(SPEEDS[experts], rel=0.02)
        slower = (1 + experts / 16) / (1 + 1 / 16)
        (time,) = [
            s["time"] for s in sweep.document["time"]["speed_ups"] if s["group"] == found["group"]
        ]
        assert time["mean"] == pytest.approx(found["steps"]["mean"] / slower, rel=1e-3)


def test_figures_are_the_papers_and_what_is_missing_is_said(sweep):
    drawn = {figure["id"]: figure for figure in sweep.document["figures"]}
    experts = ["most-used", "dead", "dropped", "entropy"]
    assert list(drawn) == ["parameters", "steps", *(f"experts-{name}" for name in experts)]
    assert [figure["id"] for figure in sweep.document["time"]["figures"]] == ["time"]
    marks = {mark["group"]: mark for mark in drawn["steps"]["marks"]}
    assert marks["16 experts"]["step"] == pytest.approx(200, rel=0.02)
    whys = {one["name"]: one["why"] for one in sweep.document["left_out"]}
    assert whys["num_experts-4_seed-2_0123abcd"] == "it is at step 300 of 1,000"
    assert whys["num_experts-4_seed-3_0123abcd"] == "it has no metrics yet"
    assert "no dense run has more FLOPs" in whys["Against a larger dense model (figure 6)"]
    curves = sweep.document["runs"][-1]["curves"]
    assert set(curves["entropy"]["value"]) == {0.5}
    assert set(curves["most_used"]["value"]) == {2}


def test_numbers_are_there_for_programs_and_pictures_for_people(sweep):
    names = {path.name for path in sweep.report.iterdir()}
    listed = {*sweep.document["files"], *sweep.document["time"]["files"], "report.json"}
    assert names == listed
    with (sweep.report / "speed-ups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows] == ["4 experts", "16 experts"]
    assert float(rows[0]["in steps low"]) <= float(rows[0]["in steps"])
    pictures = [path for path in sweep.report.iterdir() if path.suffix == ".png"]
    assert len(pictures) == 7
    assert all(path.read_bytes().startswith(PNG) for path in pictures)
    assert "16 experts" in sweep.out
    assert "left out: num_experts-4_seed-2_0123abcd: it is at step 300 of 1,000" in sweep.out
    assert sweep.err == f"wrote {sweep.report / 'report.html'}\n"


class Parsed(HTMLParser):
    """The ids and texts of a page, and whether its elements end as they begin."""

    VOID = ("meta", "br")

    def __init__(self, page):
        super().__init__()
        self.ids, self.open, self.scripts, self.tags, self.text = [], [], {}, [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag not in self.VOID:
            self.open.append((tag, attrs.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts[self.open[-1][1]] = data
        elif self.open and self.open[-1][0] != "style":
            self.text += data


def embedded(page):
    scripts = Parsed(page).scripts
    return json.loads(scripts["report"]), json.loads(scripts["time"])


def test_the_page_holds_the_document_and_is_well_formed(sweep):
    found, clock = embedded(sweep.page)
    assert {**found, "time": clock} == sweep.document
    page = Parsed(sweep.page)
    assert len(page.ids) == len(set(page.ids))
    plots = [attrs["data-figure"] for _, attrs in page.tags if "data-figure" in attrs]
    figures = [*found["figures"], *clock["figures"]]
    assert sorted(plots) == sorted(figure["id"] for figure in figures)
    # Nothing is fetched: no address in it but the names of XML's own languages.
    addresses = set(re.findall(r"https?://[^\"']*", sweep.page))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not {tag for tag, attrs in page.tags if "src" in attrs or tag == "link"}


def without_time(page):
    """A page less the two places where it says what a clock said."""
    page = re.sub(r'(?s)<script type="application/json" id="time">.*?</script>', "", page)
    return re.sub(r'(?s)(<table class="sortable" id="table-time">).*?</table>', "", page)


def test_what_happened_to_a_sweep_shows_in_its_times_alone(sweep, tmp_path):
    """The same points by slower machines at another time; a report in place of an earlier one."""
    other = make_sweep(tmp_path / "elsewhere", rate=3.0, began=2e9)
    assert main(["sweep", "report", f"--sweep_dir={other}"]) == 0
    report = other / "report"
    stale = report / "over-larger.csv"
    earlier = json.loads((report / "report.json").read_text())
    earlier["files"].append(stale.name)
    (report / "report.json").write_text(json.dumps(earlier))
    stale.write_text("of an earlier report")
    assert main(["sweep", "report", f"--sweep_dir={other}"]) == 0
    assert not stale.exists()
    assert {path.name for path in report.iterdir()} == {p.name for p in sweep.report.iterdir()}
    for path in sorted(sweep.report.iterdir()):
        ours, theirs = path.read_bytes(), (report / path.name).read_bytes()
        if path.name == "report.html":
            assert without_time(ours.decode()) == without_time(theirs.decode())
            assert ours != theirs
        elif path.name == "report.json":
            ours, theirs = json.loads(ours), json.loads(theirs)
            assert ours.pop("time") != theirs.pop("time")
            assert ours == theirs
        elif path.stem != "time":
            assert ours == theirs, path.name


def test_a_run_has_ended_once_its_last_step_is_evaluated(tmp_path):
    from switchx.reports import runs

    path = make_run(tmp_path / "run")
    assert runs.read_run("run", path).is_finished
    rows = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert '"validation"' in rows[-1]
    (path / "metrics.jsonl").write_text("".join(rows[:-1]))
    found, left_out = runs.read_runs({"run": path})
    assert (found, left_out[0].why) == ([], "it is at step 950 of 1,000")
    (path / "metrics.jsonl").write_text("".join([rows[0], "{}\n", rows[1]]))
    found, left_out = runs.read_runs({"run": path})
    assert found == []
    assert "is damaged" in left_out[0].why


EVIL = ("</script><script>alert(1)</script>", "a\"b'c & $x_1$ <!-- ", "_hidden\u2028")


def test_no_name_breaks_the_page(tmp_path):
    from switchx.reports import document, output, runs

    places = {name: make_run(tmp_path / f"{n}", 1 + 3 * n) for n, name in enumerate(EVIL)}
    varied = {name: {"NAME": name, "NUM_EXPERTS": 1} for name in EVIL}
    found, left_out = runs.read_runs(places)
    made = document.of_sweep("<b>", found, left_out, varied)
    page = output.write(made, tmp_path / "out").read_text()
    assert embedded(page)[0]["runs"][0]["name"] == EVIL[0]
    parsed = Parsed(page)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 3
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert all(name in parsed.text for name in EVIL)


def refused(capsys, *command):
    status = main(list(command))
    said = capsys.readouterr().err
    assert status == 2, said
    assert said.count("\n") == 1
    return said


def test_mistakes_are_one_line(sweep, tmp_path, capsys):
    def report(folder, *more):
        return refused(capsys, "sweep", "report", f"--sweep_dir={folder}", *more)

    assert "holds no sweep.json" in report(tmp_path)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("all of it")
    said = report(sweep.folder, f"--output={taken}")
    assert "holds something that is no earlier report" in said
    assert [path.name for path in taken.iterdir()] == ["thesis.tex"]
    assert "is a file" in report(sweep.folder, f"--output={taken / 'thesis.tex'}")
    assert "below one" in report(sweep.folder, f"--output={taken / 'thesis.tex' / 'x'}")
    unfinished = tmp_path / "unfinished"
    name = "num_experts-4_seed-2_0123abcd"
    shutil.copytree(sweep.folder / "points" / name, unfinished / "points" / name)
    text = json.loads((sweep.folder / "sweep.json").read_text())
    text["points"] = [point for point in text["points"] if point["name"] == name]
    (unfinished / "sweep.json").write_text(json.dumps(text))
    said = report(unfinished)
    assert f"has no finished point to report: {name}: it is at step 300 of 1,000" in said


def test_many_runs_make_a_page_of_bearable_size(tmp_path):
    """A hundred runs of as many measurements as a page draws."""
    from switchx.reports import document, page, runs

    text = make_run(tmp_path / "run", 16, steps=5000, every=10)
    one = runs.read_run("a", text)
    import dataclasses

    many = [dataclasses.replace(one, name=f"run {n}", seed=n) for n in range(100)]
    varied = {run.name: {"NUM_EXPERTS": 16, "SEED": run.seed} for run in many}
    made = document.of_sweep("many", many, [], varied)
    assert len(page.page(made).encode()) < 5e6
    curve = made["runs"][0]["curves"]["loss"]
    assert len(curve["step"]) == document.MOST_POINTS
    assert (curve["step"][0], curve["step"][-1]) == (10, 5000)


def test_a_sweep_in_a_bucket_has_the_same_report(sweep, gs):
    from switchx import storage

    folder = gs.folder()
    for path in (sweep.folder / "points").glob("*_seed-0_*/*"):
        storage.write_whole(f"{folder}/{path.relative_to(sweep.folder)}", path.read_bytes())
    text = json.loads((sweep.folder / "sweep.json").read_text())
    text["points"] = [point for point in text["points"] if point["varied"]["SEED"] == 0]
    storage.write_whole(f"{folder}/sweep.json", json.dumps(text))
    assert main(["sweep", "report", f"--sweep_dir={folder}"]) == 0
    found = json.loads(storage.read_bytes(f"{folder}/report/report.json", "report"))
    ours = [run for run in sweep.document["runs"] if run["seed"] == 0]
    assert found["runs"] == ours
    page = storage.read_bytes(f"{folder}/report/report.html", "report").decode()
    assert embedded(page)[0]["runs"] == ours
    names = {*found["files"], *found["time"]["files"], "report.json"}
    assert storage.names_in(f"{folder}/report", "report") == names
