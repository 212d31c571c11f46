#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, through xpk (github.com/AI-Hypercomputer/xpk).
#
#   scripts/launch_gke.sh create --cluster=pods --topology=v5e-256 --num_slices=2 --spot
#   scripts/launch_gke.sh run    --cluster=pods --topology=v5e-256 --num_slices=2 --name=base \
#     -- train --gin_file=... --model_dir=gs://my-bucket/base
#   scripts/launch_gke.sh logs   --cluster=pods --name=base --follow
#   scripts/launch_gke.sh stop   --cluster=pods --name=base
#   scripts/launch_gke.sh delete --cluster=pods
#
# Every subcommand takes
#   --cluster=NAME
#   --project=, --zone=   default: gcloud's own settings
#   --xpk_flag=FLAG       passed on to xpk, repeatable (to kubectl for logs)
#   --dry_run             print the commands, run nothing
#
# create    a cluster with its slices; again with another --num_slices to have more or fewer
#   --topology=TYPE       v4-N, v5e-N, v5p-N or v6e-N, as for `switchx plan`
#   --num_slices=N        default 1
#   --spot, --on_demand, --reservation=NAME    which capacity; one of them
# setup     makes a bucket /mnt/switchx in every workload, for programs that need files; switchx takes
#           --model_dir=gs://... without it
#   --bucket=NAME
# run       a workload: one container on every host of the slices
#   --name=NAME           of the workload
#   --topology=, --num_slices=    as created
#   --docker_image=IMAGE  with switchx on its PATH. Without it this folder is copied into
#   --base_docker_image=IMAGE     (default python:3.12) and installed as each container starts
#   --workers=N           N workloads NAME-0, NAME-1, ..., each on slices of its own, for `sweep run`
#   --max_restarts=N      after preemption or failure, each continuing from the last checkpoint (default 50)
#   --save_seconds=N      from SIGTERM until a container is killed (default 600)
#   -- COMMAND ARGS...    the switchx command line, as in -- train --gin_file=...
# status    the workloads of the cluster
# logs      of a workload
#   --name=NAME
#   --slice=I, --worker=J only this slice, only these hosts of a slice (default: all)
#   --lines=N, --follow   how much of each host's output (default 20); go on with what comes
#   --location=           of the cluster (default: the region of --zone)
# stop      deletes the workload, which saves first; the same `run` continues
#   --name=NAME
#   --workers=N           those of NAME-0 to NAME-(N-1)
# delete    the cluster; xpk asks first. The bucket stays
set -euo pipefail
# shellcheck source=scripts/launch_common.sh
source "$(dirname "$(readlink -f "$0" 2>/dev/null || echo "$0")")/launch_common.sh"

cluster="" project="" zone="" topology="" num_slices=1 spot="" on_demand="" reservation="" bucket="" name=""
docker_image="" base_docker_image="" max_restarts=50 save_seconds=600
slice="" worker="" lines=20 follow="" location="" workers=""

# xpk_on GROUP VERB ARGS...: xpk, told the place and the cluster.
xpk_on() {
  local command=(xpk "$@" "--cluster=$cluster")
  [[ -z $project ]] || command+=("--project=$project")
  [[ -z $zone ]] || command+=("--zone=$zone")
  run "${command[@]}" ${flags[@]+"${flags[@]}"}
}

tpu_type() {
  require topology "as in --topology=v5e-256"
  [[ $topology =~ ^(v4|v5e|v5litepod|v5p|v6e)-[1-9][0-9]*$ ]] ||
    fail "--topology=$topology is none of v4-N, v5e-N, v5p-N, v6e-N, as in v5e-256"
  echo "--tpu-type=${topology/#v5e-/v5litepod-}"
}

create() {
  local type command
  type=$(tpu_type)
  at_most_one spot on_demand reservation
  [[ -n $spot$on_demand$reservation ]] || fail "which capacity? --spot, --on_demand or --reservation=NAME"
  command=(cluster create "$type" "--num-slices=$num_slices" --enable-gcsfuse-csi-driver)
  [[ -z $spot ]] || command+=(--spot)
  [[ -z $on_demand ]] || command+=(--on-demand)
  [[ -z $reservation ]] || command+=("--reservation=$reservation")
  xpk_on "${command[@]}"
}

# Checkpoints are directories renamed when complete, which every host must see at once: renames are
# allowed, and metadata is never cached.
setup() {
  local options=implicit-dirs,rename-dir-limit=200000
  options=$options,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
  require bucket "as in --bucket=my-bucket"
  xpk_on storage attach switchx --type=gcsfuse "--bucket=$bucket" --mount-point=/mnt/switchx \
    --readonly=false --auto-mount=true --size=1 --no-prefetch-metadata "--mount-options=$options"
}

# What a container runs, on every host with the same secret. `exec`, because xpk hands its SIGTERM to
# the shell it starts and no further.
container_command() {
  printf 'export SWITCHX_JOB_SECRET=%s && ' "$(quote "$(job_secret)")"
  if [[ -n $docker_image ]]; then
    echo "exec switchx $(quote "${rest[@]}")"
  else
    echo "make install EXTRAS=\"tpu cloud\" && exec .venv/bin/switchx $(quote "${rest[@]}")"
  fi
}

workloads() {
  local number
  if [[ -z $workers ]]; then
    echo "$name"
    return
  fi
  for ((number = 0; number < workers; number++)); do echo "$name-$number"; done
}

start() {
  local type argument workload
  type=$(tpu_type)
  require name "as in --name=base"
  require_name name
  require_switchx_command
  at_most_one docker_image base_docker_image
  for argument in "${rest[@]}"; do
    # shellcheck disable=SC2016  # the characters themselves
    [[ $argument != *'$$'* && $argument != *'$('* ]] ||
      fail "Kubernetes would rewrite the \$\$ or \$( in '$argument'"
  done
  image=("--base-docker-image=${base_docker_image:-python:3.12}" "--script-dir=$repository")
  [[ -z $docker_image ]] || image=("--docker-image=$docker_image")
  [[ -z $workers || ${rest[0]} == sweep ]] ||
    fail "--workers=$workers is for -- sweep run; '${rest[0]}' is one workload"
  for workload in $(workloads); do
    submit "$workload" "$type"
  done
}

# submit WORKLOAD TYPE: each has a secret of its own.
submit() {
  xpk_on workload create "--workload=$1" "$2" "--num-slices=$num_slices" "${image[@]}" \
    "--max-restarts=$max_restarts" "--termination-grace-period-seconds=$save_seconds" \
    "--command=$(container_command)"
}

logs() {
  local selector="xpk.google.com/workload=$name" command
  require name "as in --name=base"
  location=${location:-${zone%-*}}
  require location "or --zone, to find the cluster"
  [[ -z $slice ]] || selector=$selector,jobset.sigs.k8s.io/job-index=$slice
  [[ -z $worker ]] || selector=$selector,batch.kubernetes.io/job-completion-index=$worker
  command=(gcloud container clusters get-credentials "$cluster" "--location=$location")
  [[ -z $project ]] || command+=("--project=$project")
  run "${command[@]}"
  # kubectl follows 5 pods unless told otherwise, and shows 10 lines of each
  command=(kubectl logs "--selector=$selector" --prefix "--tail=$lines" --max-log-requests=4096)
  [[ -z $follow ]] || command+=(--follow)
  run "${command[@]}" ${flags[@]+"${flags[@]}"}
}

stop() {
  local workload
  require name "as in --name=base"
  for workload in $(workloads); do
    xpk_on workload delete "--workload=$workload"
  done
}

subcommand=${1-}
shift || true
common="cluster project zone xpk_flag"
case $subcommand in
  create) parse "$common topology num_slices reservation" "spot on_demand" "$@" ;;
  setup) parse "$common bucket" "" "$@" ;;
  run)
    parse "$common name topology num_slices docker_image base_docker_image max_restarts save_seconds workers" "" "$@"
    ;;
  status | delete) parse "$common" "" "$@" ;;
  logs) parse "$common name slice worker lines location" follow "$@" ;;
  stop) parse "$common name workers" "" "$@" ;;
  -h | --help) usage; exit ;;
  *) fail "'$subcommand' is none of create, setup, run, status, logs, stop, delete; see --help" ;;
esac
[[ $subcommand == run ]] || ((${#rest[@]} == 0)) || fail "$subcommand takes no switchx command"
require cluster "as in --cluster=pods"
require_name cluster
[[ -z $bucket ]] || require_bucket bucket
for number in num_slices lines save_seconds; do require_number "$number" 1; done
require_number max_restarts 0
[[ -z $workers ]] || require_number workers 1
for number in slice worker; do [[ -z ${!number} ]] || require_number "$number" 0; done
if [[ $subcommand == logs ]]; then
  need gcloud "cloud.google.com/sdk/docs/install"
  need kubectl "gcloud components install kubectl"
else
  need xpk "pip install xpk"
fi
case $subcommand in
  create) create ;;
  setup) setup ;;
  run) start ;;
  status) xpk_on workload list ;;
  logs) logs ;;
  stop) stop ;;
  delete) xpk_on cluster delete ;;
esac; exit # on the same line: bash must not read on in a file that has changed meanwhile
