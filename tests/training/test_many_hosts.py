"""Real processes of one job: the same losses as one process, lost hosts, preemption, restores."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from switchx import storage
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.checkpoints import restore_params
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.run_reader import metric_rows
from tests.training import host_process
from tests.training.helpers import NARROW, run_config

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.training.host_process"]
STEPS = 10  # a notice to one reaches all some steps later, and must not meet the end


def flags(devices):
    """Of XLA: the suite's for another number of devices."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


class Hosts:
    """The processes of one job, with so many devices in all."""

    def __init__(self, directory, count, devices=8, **options):
        with socket.create_server(("", 0)) as server:
            address = f"localhost:{server.getsockname()[1]}"
        environment = {**os.environ, "XLA_FLAGS": flags(devices // count), "JAX_PLATFORMS": "cpu"}
        self.directory, self.began = directory, time.time()
        self.processes = [
            subprocess.Popen(
                [*COMMAND, str(directory), address, str(count), str(index), json.dumps(options)],
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]

    def end(self):
        """Exit status and standard error of each."""
        try:
            errors = [process.communicate(timeout=900)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], errors

    def wait_for_step(self, step):
        deadline = time.monotonic() + 900
        while not any(
            row["step"] >= step and row["time"] >= self.began  # and not of a life before
            for row in metric_rows(self.directory)
        ):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes), self.end()
            time.sleep(0.05)


def run(directory, count, **options):
    """One alone needs no process of its own."""
    if count == 1:
        assert host_process.main(str(directory), "", 1, 0, json.dumps(options)) == 0
        return
    statuses, errors = Hosts(directory, count, **options).end()
    assert statuses == [0] * count, errors


def losses(directory):
    rows = [row for row in metric_rows(directory) if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))  # each written once
    return np.array([row["loss"] for row in rows])


def params_of(directory):
    one = run_config(**NARROW, mesh=MeshConfig(1, 1, 1))
    mesh = make_mesh(one.mesh, jax.devices()[:1])
    found, step = restore_params(Model.of(one.model), directory, mesh)
    assert step == STEPS
    return jax.device_get(found)


def assert_same_end(directory, other):
    np.testing.assert_array_equal(losses(directory), losses(other))
    jax.tree.map(np.testing.assert_array_equal, params_of(directory), params_of(other))


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """What one process with all eight devices does: this one."""
    directory = tmp_path_factory.mktemp("one")
    run(directory, 1, scored=True)
    return directory


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    run(directory, 2, scored=True)
    return directory


def test_two_processes_compute_what_one_does(of_one, of_two):
    np.testing.assert_allclose(losses(of_two), losses(of_one), rtol=1e-6)
    (ours, theirs) = (
        [r["loss"] for r in metric_rows(d) if r["split"] == "validation"] for d in (of_two, of_one)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    saved = sorted(p.name for p in (of_two / f"checkpoints/{STEPS}/position").glob("shard-*"))
    assert saved == [f"shard-{n:05d}-of-00004" for n in range(4)]
    assert not list(of_two.glob(".shared-by-*"))


def test_two_processes_score_what_one_does(of_one, of_two):
    """Every example once, whichever host has its row."""
    (ours, theirs) = ((d / f"predictions/sums/{STEPS}.jsonl").read_text() for d in (of_two, of_one))
    assert ours == theirs
    assert len(ours.splitlines()) == 11
    (ours, theirs) = (
        [
            (r["score/tokens"], r["score/nats"])
            for r in metric_rows(d)
            if r["split"].endswith("sums")
        ]
        for d in (of_two, of_one)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert len(ours) == 1


def test_a_lost_host_and_a_notice_to_one_of_them_then_a_restart_ends_the_same(of_two, tmp_path):
    """Of a process that is killed the others say so; of a notice to one all save and leave."""
    hosts = Hosts(tmp_path, 2, slow_after=3)
    hosts.wait_for_step(3)
    hosts.processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    statuses, errors = hosts.end()
    assert time.monotonic() - began < 30
    assert statuses == [1, -signal.SIGKILL]
    assert "process 1 was lost. Start the same command on all hosts to go on." in errors[0]
    assert saved_steps(tmp_path) == [2]

    hosts = Hosts(tmp_path, 2, slow_after=3)
    hosts.wait_for_step(3)
    hosts.processes[1].send_signal(signal.SIGTERM)
    statuses, errors = hosts.end()
    assert statuses == [128 + signal.SIGTERM] * 2, errors
    newest = saved_steps(tmp_path)[-1]
    assert 3 <= newest < STEPS
    assert max(row["step"] for row in metric_rows(tmp_path)) == newest

    run(tmp_path, 2)
    assert_same_end(tmp_path, of_two)


def test_what_some_processes_saved_fewer_and_more_go_on_with_on_other_meshes(of_one, of_two, gs):
    """In a bucket, from step 2 on. The last mesh's model axis spans two hosts, which read the same
    rows."""
    directory = f"{gs.folder()}/of several"
    for file in [*of_two.glob("*.json*"), *of_two.glob("checkpoints/2/**/*")]:
        if file.is_file():
            storage.write_whole(f"{directory}/{file.relative_to(of_two)}", file.read_bytes())
    run(directory, 1, train_steps=4, mesh=(4, 1, 2))
    run(directory, 2, devices=4, mesh=(1, 2, 2))
    np.testing.assert_allclose(losses(directory), losses(of_one), rtol=1e-5)


def test_all_roll_back_together_behind_a_bad_batch(tmp_path):
    """Batch 3 is bad, behind the checkpoint of step 2."""
    run(tmp_path, 2, bad=[3])
    rows = [row for row in metric_rows(tmp_path) if row["split"] == "rollback"]
    assert [(r["from"], r["to"], r["batches_skipped"]) for r in rows] == [(4, 2, 2)]
    assert np.all(np.isfinite(losses(tmp_path)))
    looked_into = json.loads((tmp_path / "bad_loss.4.json").read_text())
    assert looked_into["first"] == {"kind": "batch", "name": "decoder_loss_weights"}


def test_hosts_that_do_not_share_the_directory_are_told(tmp_path):
    """Two jobs' processes that met, but write to different places."""
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": flags(4)}
    processes = [
        subprocess.Popen(
            [*COMMAND, str(tmp_path / f"host{index}"), address, "2", str(index)],
            cwd=REPOSITORY,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert "is another directory on process 1 than on process 0" in errors[1]
    assert "process 1 stopped: MODEL_DIR" in errors[0]
