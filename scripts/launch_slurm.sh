#!/usr/bin/env bash
# Trains on nodes of a SLURM cluster: one process a node, with all of the node's GPUs; or starts the
# workers of a sweep as the tasks of an array, each a job of its own.
#
#   scripts/launch_slurm.sh run    --nodes=4 --gpus_per_node=8 --time=24:00:00 \
#     -- train --gin_file=... --model_dir=/shared/base
#   scripts/launch_slurm.sh run    --workers=16 --gpus_per_node=1 --share_nodes --cpus_per_task=8 \
#     -- sweep run --gin_file=configs/sweeps/... --sweep_dir=/shared/sweep
#   scripts/launch_slurm.sh status --job=12345
#   scripts/launch_slurm.sh logs   --job=12345 --follow
#   scripts/launch_slurm.sh stop   --job=12345
#
# Run it in a checkout, installed with `make install EXTRAS=cuda`, that all nodes see at the same path.
# Shortly before the time limit every process gets SIGTERM and saves; the job then queues itself again,
# under the same number, and continues. To keep the job as a file: run --dry_run ... >job.sh.
#
# Every subcommand takes
#   --log_dir=DIR         default logs; a job writes DIR/slurm-JOB.log, a worker DIR/slurm-JOB_TASK.log
#   --dry_run             print the commands, run nothing
#
# run       submits the job
#   --nodes=N             default 1
#   --gpus_per_node=N     default none: a job on CPUs
#   --workers=N           an array of N tasks, each with its own nodes, for `sweep run`
#   --at_most=N           so many of them at once (default: as many as there is room for)
#   --cut_to_limit        fewer of them where the cluster takes no array as large (MaxArraySize)
#   --share_nodes         others may use what the job does not; without it its nodes are its alone
#   --cpus_per_task=N     cores of each process
#   --time=LIMIT          as sbatch takes it (default: the partition's)
#   --save_seconds=N      from SIGTERM to the time limit (default 600)
#   --name=, --partition=, --account=     the job's (default name switchx)
#   --sbatch_flag=FLAG    passed on to sbatch, repeatable, as in --sbatch_flag=--mem=0
#   --switchx=PROGRAM     what the nodes run (default: .venv/bin/switchx of this checkout)
#   -- COMMAND ARGS...    the switchx command line, as in -- train --gin_file=...
# status    of the job
#   --job=NUMBER
# logs      of the job, each line with the number of its node
#   --job=NUMBER
#   --task=NUMBER         of an array, from 0
#   --lines=N, --follow   how much of it (default 50); go on with what comes
# stop      has the job save and leave, and not queue itself again; the same `run` continues
#   --job=NUMBER
set -euo pipefail
# shellcheck source=scripts/launch_common.sh
source "$(dirname "$(readlink -f "$0" 2>/dev/null || echo "$0")")/launch_common.sh"

log_dir=logs nodes=1 gpus_per_node="" time="" save_seconds=600 name=switchx partition="" account=""
switchx="$repository/.venv/bin/switchx" job="" lines=50 follow=""
workers="" at_most="" cut_to_limit="" share_nodes="" cpus_per_task="" task=""

# One task a node sees all GPUs and cores: no binding. SLURM must not kill the others when the first
# has saved and left (--kill-on-bad-exit=0), but end them if they hang after a failure (--wait).
srun_command() {
  local command=(srun "--nodes=$nodes" "--ntasks=$nodes" --ntasks-per-node=1 --cpu-bind=none)
  [[ -z $gpus_per_node ]] || command+=("--gpus-per-node=$gpus_per_node" --gpu-bind=none)
  [[ -z $cpus_per_task ]] || command+=("--cpus-per-task=$cpus_per_task")
  command+=(--kill-on-bad-exit=0 "--wait=$save_seconds" --label)
  quote "${command[@]}" "$switchx" "${rest[@]}"
}

# The job makes its secret itself: a new one each time it starts, which no command line shows.
# 143: saved after SIGTERM. The signal goes to the tasks, not to this script (no B:), as a SIGTERM to
# srun itself would kill them. `stop` forbids the requeueing, which then fails and leaves the 143.
job_script() {
  # shellcheck disable=SC2016  # expanded by the job
  printf '%s %s; status=$?; [ "$status" -ne 143 ] || scontrol requeue "$SLURM_JOB_ID"; exit "$status"' \
    'export SWITCHX_JOB_SECRET="$(od -An -N16 -tx1 /dev/urandom | tr -d " \n")";' "$(srun_command)"
}

# An array's tasks have numbers below MaxArraySize; each worker takes points until none is left, so
# that fewer of them do the same in more time.
array() {
  local most
  if [[ -n $cut_to_limit && -z $dry_run ]]; then
    most=$(scontrol show config | sed -n 's/^MaxArraySize *= *//p')
    [[ $most =~ ^[0-9]+$ ]] || fail "scontrol does not say MaxArraySize; leave out --cut_to_limit"
    if ((workers > most)); then
      echo "$me: $most workers instead of $workers, the most that the cluster takes in an array" >&2
      workers=$most
    fi
  fi
  echo "--array=0-$((workers - 1))${at_most:+%$at_most}"
}

submit() {
  local command output="$log_dir/slurm-%j.log"
  require_switchx_command
  command=(sbatch "--job-name=$name" "--nodes=$nodes" --ntasks-per-node=1)
  [[ -n $share_nodes ]] || command+=(--exclusive)
  if [[ -n $workers ]]; then
    [[ ${rest[0]} == sweep ]] || fail "--workers=$workers is for -- sweep run; '${rest[0]}' is one job"
    command+=("$(array)")
    output="$log_dir/slurm-%A_%a.log"
  fi
  [[ -z $cpus_per_task ]] || command+=("--cpus-per-task=$cpus_per_task")
  [[ -z $gpus_per_node ]] || command+=("--gpus-per-node=$gpus_per_node")
  [[ -z $time ]] || command+=("--time=$time")
  [[ -z $partition ]] || command+=("--partition=$partition")
  [[ -z $account ]] || command+=("--account=$account")
  command+=("--signal=TERM@$save_seconds" --requeue --open-mode=append "--output=$output")
  command+=(${flags[@]+"${flags[@]}"})
  run mkdir -p "$log_dir"
  run "${command[@]}" "--wrap=$(job_script)"
}

logs() {
  local command=(tail -n "$lines")
  [[ -z $follow ]] || command+=(-F)
  run "${command[@]}" "$log_dir/slurm-$job${task:+_$task}.log"
}

stop() {
  run scancel --state=PENDING "$job" # tasks of an array that have not begun
  run scontrol update "JobId=$job" Requeue=0
  run scancel --signal=TERM "$job"
}

subcommand=${1-}
shift || true
case $subcommand in
  run)
    common="log_dir nodes gpus_per_node time save_seconds name partition account sbatch_flag switchx"
    parse "$common workers at_most cpus_per_task" "cut_to_limit share_nodes" "$@"
    ;;
  status | stop) parse "log_dir job" "" "$@" ;;
  logs) parse "log_dir job lines task" follow "$@" ;;
  -h | --help) usage; exit ;;
  *) fail "'$subcommand' is none of run, status, logs, stop; see --help" ;;
esac
if [[ $subcommand != run ]]; then
  ((${#rest[@]} == 0)) || fail "$subcommand takes no switchx command"
  require job "the number that sbatch printed"
  require_number job 1
fi
for number in nodes save_seconds lines; do require_number "$number" 1; done
((save_seconds <= 65535)) || fail "--save_seconds=$save_seconds is more than SLURM takes, 65535"
for number in gpus_per_node workers at_most cpus_per_task; do
  [[ -z ${!number} ]] || require_number "$number" 1
done
[[ -z $task ]] || require_number task 0
[[ -n $workers || -z $at_most$cut_to_limit ]] || fail "--at_most and --cut_to_limit are for --workers=N"
case $subcommand in
  run) need sbatch "SLURM's own"; submit ;;
  status) need squeue "SLURM's own"; run squeue "--job=$job" ;;
  logs) logs ;;
  stop) need scancel "SLURM's own"; stop ;;
esac; exit # on the same line: bash must not read on in a file that has changed meanwhile
