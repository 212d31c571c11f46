"""The job that a process is a part of, by flags and by what launchers put into the environment."""

import pytest

from switchx.errors import UserError
from switchx.hosts.job import Job, find_job

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[003-006,9]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
}
OPEN_MPI_4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher's names, whatever runs the tests."""
    for name in (*SLURM, *OPEN_MPI_4, "JAX_COORDINATOR_PORT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def within(monkeypatch, environment, *flags):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return find_job(*(flags or (None, None, None)), timeout=1)


def test_a_laptop_is_alone():
    assert find_job(None, None, None, 1) is None


def test_flags():
    job = find_job("node0:8476", 4, 3, 1)
    assert job == Job("node0:8476", 4, 3)
    assert (job.host, job.port) == ("node0", 8476)
    assert find_job("[fe80::1]:80", 2, 0, 1).host == "fe80::1"
    assert find_job("node0:8476", 1, 0, 1) is None


def test_slurm_says_all_and_the_one_task_of_a_node_sees_all_its_gpus(monkeypatch):
    job = within(monkeypatch, SLURM)
    assert (job.host, job.count, job.index, job.local_devices) == ("node003", 4, 2, None)
    assert 61440 <= job.port < 65536  # JAX's rule: by the number of the job


def test_what_the_environment_said_is_told_and_how_to_run_alone(monkeypatch):
    job = within(monkeypatch, SLURM)
    assert job.reason == "SLURM_NTASKS=4, SLURM_PROCID=2 in the environment make 4 processes"
    assert "--num_processes=1" in job.remedy
    assert within(monkeypatch, SLURM, None, 1, None) is None  # and it is so


def test_a_pod_of_kubernetes_without_tpus_is_alone_and_quiet(monkeypatch, recwarn):
    assert within(monkeypatch, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None
    assert not recwarn.list


def test_several_slurm_tasks_of_a_node_have_a_gpu_each(monkeypatch):
    more = {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_LOCALID": "2"}
    assert within(monkeypatch, SLURM | more).local_devices == (2,)


def test_an_allocation_without_srun_is_alone(monkeypatch):
    assert within(monkeypatch, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}) is None
    assert within(monkeypatch, SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None


def test_open_mpi(monkeypatch):
    job = within(monkeypatch, OPEN_MPI_4)
    assert (job.host, job.count, job.index, job.local_devices) == ("10.96.0.1", 8, 5, (1,))


def test_a_newer_open_mpi_wants_the_address_and_never_trains_the_same_run_twice(monkeypatch):
    newer = {name: v for name, v in OPEN_MPI_4.items() if name != "OMPI_MCA_orte_hnp_uri"}
    with pytest.raises(UserError) as error:
        within(monkeypatch, newer)
    for part in ("OMPI_COMM_WORLD_SIZE=8, OMPI_COMM_WORLD_RANK=5", "--coordinator_address is miss"):
        assert part in str(error.value)
    job = within(monkeypatch, newer, "node0:80", None, None)
    assert (job.address, job.count, job.index, job.local_devices) == ("node0:80", 8, 5, (1,))


def test_flags_win_over_the_environment(monkeypatch):
    job = within(monkeypatch, SLURM, "other:99", None, None)
    assert (job.address, job.count, job.index) == ("other:99", 4, 2)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((None, 2, 0), "--coordinator_address is missing"),
        (("node0:80", None, 0), "--num_processes is missing"),
        (("node0:80", 2, None), "--process_id is missing"),
        (("node0", 2, 0), "--coordinator_address=node0 must be HOST:PORT"),
        (("node0:http", 2, 0), "must be HOST:PORT"),
        (("node0:99999", 2, 0), "must be HOST:PORT"),
        (("node0:80", 0, 0), "--num_processes=0 must be a whole number of at least 1"),
        ((None, 0, None), "--num_processes=0 must be a whole number of at least 1"),
        ((None, 1, 1), "--process_id=1 must be 0, where --num_processes=1 runs alone"),
        (("node0:80", 2, 2), "--process_id=2 must be from 0 to 1"),
        (("node0:80", 2, -1), "--process_id=-1 must be from 0 to 1"),
    ],
)
def test_what_is_wrong_is_named(flags, says):
    with pytest.raises(UserError, match=says):
        find_job(*flags, timeout=1)


@pytest.mark.parametrize(
    "environment",
    [
        SLURM | {"SLURM_NTASKS": "many"},
        SLURM | {"SLURM_PROCID": ""},
        OPEN_MPI_4 | {"OMPI_COMM_WORLD_RANK": "x"},
        OPEN_MPI_4 | {"OMPI_MCA_orte_hnp_uri": "x"},
    ],
)
def test_variables_that_make_no_sense(monkeypatch, environment):
    with pytest.raises(UserError, match=r"\w+=.* in the environment .* with --num_processes=1\.$"):
        within(monkeypatch, environment)
    assert within(monkeypatch, environment, None, 1, None) is None
