"""switchx sweep run: works through the points of a sweep, beside any number of other workers."""

import argparse
import os
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from switchx import storage
from switchx.checks import at_least
from switchx.cli.flags import request
from switchx.errors import RunError, UserError
from switchx.terminal import remark

if TYPE_CHECKING:
    from switchx.sweeps.desk import Desk
    from switchx.sweeps.folder import SweepFolder
    from switchx.sweeps.running import Running


def run(args: argparse.Namespace) -> int:
    """Works until nothing is left that this process could do."""
    at_least("--slots", args.slots, 1)
    folder = _folder(args)
    if args.slots > 1:
        return _run_slots(args, folder)
    return _run_worker(args, folder)


def _folder(args: argparse.Namespace) -> "SweepFolder":
    """The sweep's folder, brought up to its gin file where that is named."""
    from switchx.sweeps import making
    from switchx.sweeps.folder import SweepFolder

    asked = request(args)
    if not asked.gin_files and args.sweep_dir is not None:
        if asked.bindings:
            raise UserError(
                f"{asked.bindings[0].origin} changes a sweep, and none is named: give its gin file "
                "with --gin_file."
            )
        return SweepFolder.open(args.sweep_dir)
    made = making.make(asked, args.sweep_dir)
    if (args.process_id or 0) == 0:
        made.write()
        for line in made.changes():
            remark(line)
    return made.folder


def _run_worker(args: argparse.Namespace, folder: "SweepFolder") -> int:
    import jax

    from switchx import hosts
    from switchx.cli.hosts import joined_over
    from switchx.sweeps.running import Running
    from switchx.sweeps.worker import work

    where = str(folder.path)
    with joined_over(args, folder.text(), where, "SWEEP_DIR", preemption=True) as token:
        say = remark if hosts.is_first() else _say_nothing

        def begun(model_dir: str) -> None:
            if args.log:
                args.log.leave()
                args.log.move_to(model_dir, jax.process_index())

        running = Running(folder, token, begun, say)
        desk = _desk(args, folder, running) if hosts.is_first() else None
        stopped = work(folder, desk, running, _name(), say)
    if stopped is not None:
        return 128 + stopped
    return _conclude(desk) if desk else 0


def _desk(args: argparse.Namespace, folder: "SweepFolder", running: "Running") -> "Desk":
    import switchx
    from switchx.hosts.installation import code
    from switchx.sweeps.claims import Claims
    from switchx.sweeps.desk import Desk

    points = {point.name: point for point in folder.points}
    claims = Claims(
        lambda name: folder.state_directory(points[name]),
        {"switchx": switchx.__version__, "code": code()},
    )
    desk = Desk(folder, claims, running.unfit, running.forkable, remark)
    desk.check_versions()
    if args.retry_failed:
        desk.states.forget_failed()
    return desk


def _conclude(desk: "Desk") -> int:
    """Says what is done and what is left, and why."""
    folder, states = desk.folder, desk.states.read()
    failed = [point for point in folder.points if desk.states.failed(states[point.name])]
    done = sum(state.done is not None for state in states.values())
    remark(f"{done} of {len(states)} points are done")
    for name, holder in desk.left.held.items():
        remark(f"{name} is left to who is at it, process {holder}")
    for name, trunk in desk.left.waiting.items():
        remark(f"{name} waits for a checkpoint of {trunk}")
    for name, why in desk.left.unfit.items():
        remark(f"{name} is left to a worker with other devices: {why}")
    where = f"--sweep_dir={shlex.quote(str(folder.path))}"
    if failed:
        why = desk.states.why(failed[0], states[failed[0].name])
        raise RunError(
            f"{len(failed)} of {len(states)} points failed, {failed[0].name} for one: {why} "
            f"`switchx sweep run {where} --retry_failed` tries them again."
        )
    if len(desk.left.unfit) == len(states) - done > 0 and not desk.handed_out:
        raise UserError("None of the points that are left can run on the devices here: see above.")
    if done == len(states):
        remark(f"see them with `switchx sweep report {where}`")
    return 0


def _run_slots(args: argparse.Namespace, folder: "SweepFolder") -> int:
    """Several workers; this process shows what becomes of the points, and computes nothing."""
    from switchx.sweeps.slots import Slots, gpus, worker_command
    from switchx.sweeps.states import States
    from switchx.sweeps.watching import Watching

    if args.num_processes not in (None, 1) or args.coordinator_address is not None:
        raise UserError(
            f"--slots={args.slots} is for workers of one process each: leave it out, and start "
            "another job beside this one."
        )
    arguments = [f"--sweep_dir={folder.path}", "--num_processes=1"]
    arguments += [f"--cpu_devices={args.cpu_devices}"] * (args.cpu_devices is not None)
    arguments += ["--verbose"] * args.verbose
    if args.retry_failed:  # once, and not again by a worker that begins later
        States(folder).forget_failed()
    logs = Path("logs") / folder.name if storage.is_remote(folder.path) else folder.path / "logs"
    slots = Slots(worker_command(arguments), logs, remark)
    devices = [] if args.cpu_devices else gpus()
    remark(f"{args.slots} workers, whose words are in {logs}")
    watching = Watching(folder, remark)
    status = slots.run(args.slots, watching.look, devices)
    watching.show()
    return status


def _name() -> str:
    """This worker's, for people who look for it."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    of = f", task {task} of job {os.environ.get('SLURM_ARRAY_JOB_ID')}" if task else ""
    return f"{os.getpid()} on {socket.gethostname()}{of}"


def _say_nothing(line: str) -> None:
    """Of several hosts the first one speaks."""
