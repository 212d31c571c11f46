"""A made-up sweep and its report, for all tests of reports. Not to be written to."""

import json
from types import SimpleNamespace

import pytest

from tests.reports.made_up import make_run

SPEEDS = {1: 1.0, 4: 2.0, 16: 5.0}
OF_SEED = {0: 1.0, 1: 1.1}  # times the speed: of the dense runs too, so that it cancels


def make_sweep(folder, rate=10.0, began=1e9):
    """Three numbers of experts and two seeds, a point that runs and one that has not begun."""
    points = []
    for experts, speed in SPEEDS.items():
        for seed, factor in OF_SEED.items():
            name = f"num_experts-{experts}_seed-{seed}_0123abcd"
            points.append((name, {"NUM_EXPERTS": experts, "SEED": seed}))
            make_run(
                folder / "points" / name,
                experts=experts,
                seed=seed,
                speed=speed * factor,
                rate=rate / (1 + experts / 16),
                began=began,
            )
    running = "num_experts-4_seed-2_0123abcd"
    points.append((running, {"NUM_EXPERTS": 4, "SEED": 2}))
    make_run(folder / "points" / running, experts=4, seed=2, until=300, began=began)
    waiting = "num_experts-4_seed-3_0123abcd"
    points.append((waiting, {"NUM_EXPERTS": 4, "SEED": 3}))
    make_run(folder / "points" / waiting, experts=4, seed=3, began=began)
    (folder / "points" / waiting / "metrics.jsonl").unlink()
    (folder / "sweep.json").write_text(sweep_json(points))
    return folder


def sweep_json(points):
    figures = {"config": "0" * 64, "steps": 1, "tokens": 1, "flops": 1, "parameters": 1}
    return json.dumps(
        {
            "format": 1,
            "switchx": "0.2.0",
            "name": "made up",
            "points": [
                {"name": name, "varied": varied, **figures, "fork": None} for name, varied in points
            ],
            "retries": 2,
            "on_failure": "go_on",
            "order": "longest",
        }
    )


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The folder, and what `switchx sweep report` ended with and printed."""
    import contextlib
    import io

    from switchx.cli.main import main

    folder = make_sweep(tmp_path_factory.mktemp("sweep"))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["sweep", "report", f"--sweep_dir={folder}"])
    report = folder / "report"
    return SimpleNamespace(
        folder=folder,
        report=report,
        status=status,
        out=out.getvalue(),
        err=err.getvalue(),
        document=json.loads((report / "report.json").read_text()),
        page=(report / "report.html").read_text(),
    )
