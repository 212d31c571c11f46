#!/usr/bin/env python
"""Reproduces tables of the Switch Transformer paper with models that a laptop trains.

Span corruption of the embedded corpus with a vocabulary of 1,000 pieces, models of one to three
million parameters, all trained on the same batches in the same order. Tables 6 and 7 (distillation)
are runs of configs/runs/laptop_experts.gin, each in a directory of its own. Finished runs are kept
in results.jsonl and not repeated; --report makes the tables and the plots from it.

    python scripts/reproduce_paper.py                  # every run, then the speeds, then the report
    python scripts/reproduce_paper.py --only dense "switch 8"
    python scripts/reproduce_paper.py --distillation   # Tables 6 and 7 alone
    python scripts/reproduce_paper.py --speed --report
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from reproduction import balance, lesson_report, report
from reproduction.lessons import LESSONS
from reproduction.plan import STEPS
from reproduction.plan import VARIANTS as OF_THE_PAPER

VARIANTS = OF_THE_PAPER | balance.VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduction"))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--distillation", action="store_true", help="train Tables 6 and 7 alone")
    parser.add_argument("--speed", action="store_true", help="measure speed, train nothing")
    parser.add_argument("--rounds", type=int, default=8, help="turns of every variant")
    parser.add_argument("--report", action="store_true", help="make the report, train nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    everything = not (args.speed or args.report or args.distillation)
    if everything:
        train_missing(results, args.only)
    if args.distillation or (everything and args.only == list(VARIANTS)):
        teach_missing(results)
    if everything or args.speed:
        measure_speed(results, args.rounds)
    write_report(results, args.out)


def train_missing(path: Path, names: list[str]) -> None:
    """Trains what the results file does not hold yet, a line of it after each run."""
    done = {(r["name"], r["seed"]) for r in report.read(path) if r["kind"] == "run"}
    missing = {
        name: [seed for seed in VARIANTS[name].each_seed() if (name, seed) not in done]
        for name in names
    }
    missing = {name: seeds for name, seeds in missing.items() if seeds}
    if not missing:
        return
    prepare_jax()
    from reproduction import data
    from reproduction.training import Trainer

    batches, held_out = data.load(path.parent, STEPS)
    for name, seeds in missing.items():
        trainer = Trainer(VARIANTS[name], held_out)
        for seed in seeds:
            record = {"kind": "run", "name": name, **trainer.run(seed, batches)}
            append(path, record)
            print(f"{name}, seed {seed}: {record['losses']}", flush=True)


def teach_missing(path: Path) -> None:
    """The same for the runs of Tables 6 and 7, teachers before their students."""
    done = {(r["name"], r["seed"]) for r in report.read(path) if r["kind"] == "lesson"}
    planned = [(name, seed) for name, lesson in LESSONS.items() for seed in lesson.seeds]
    missing = [run for run in planned if run not in done]
    if not missing:
        return
    prepare_jax()
    from reproduction import teaching

    runs = path.parent / "distillation"
    teaching.prepare(runs)
    for name, seed in missing:
        append(path, {"kind": "lesson", "name": name, **teaching.train(runs, name, seed)})


def measure_speed(path: Path, rounds: int) -> None:
    prepare_jax()
    from reproduction import data
    from reproduction.training import speeds

    for name, record in speeds(data.random_batch(), rounds, steps=5):
        append(path, {"kind": "speed", "name": name, **record})


def append(path: Path, record: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"when": time.time(), **record}) + "\n")


def write_report(results: Path, out: Path) -> None:
    found = report.read(results)
    parts = (report.markdown(found), balance.markdown(found), lesson_report.markdown(found))
    text = "\n\n".join(filter(None, parts))
    (out / "report.md").write_text(text)
    report.plot(found, out / "reproduction.png")
    lesson_report.plot(found, out / "distillation.png")
    print(text)


def prepare_jax() -> None:
    """What must be set before JAX computes: the platform, and a cache of compiled programs."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/switchx/xla")
    jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser()))


if __name__ == "__main__":
    sys.exit(main())
