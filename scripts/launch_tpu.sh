#!/usr/bin/env bash
# Creates a Cloud TPU slice, installs this checkout on all its hosts, trains there, follows, stops, deletes.
#
#   scripts/launch_tpu.sh create --name=pod --topology=v5e-256 --spot
#   scripts/launch_tpu.sh wait   --name=pod
#   scripts/launch_tpu.sh setup  --name=pod
#   scripts/launch_tpu.sh run    --name=pod -- train --gin_file=... --model_dir=gs://my-bucket/base
#   scripts/launch_tpu.sh logs   --name=pod --follow
#   scripts/launch_tpu.sh stop   --name=pod
#   scripts/launch_tpu.sh delete --name=pod
#
# A sweep takes any number of slices, each a worker:
#   scripts/launch_tpu.sh run --name=pod-0,pod-1 -- sweep run --gin_file=... --sweep_dir=gs://my-bucket/sweep
#
# Every subcommand takes
#   --name=NAME           of the slice: the queued resource and its TPU VM; or several, A,B,C, of which
#                         each gets what is asked for
#   --project=, --zone=   default: gcloud's own settings
#   --gcloud_flag=FLAG    passed on to gcloud, repeatable, as in --gcloud_flag=--internal-ip
#   --dry_run             print the commands, run nothing
#
# create       asks for the slice as a queued resource; returns at once
#   --topology=TYPE       v4-N, v5e-N, v5p-N or v6e-N, as for `switchx plan`: N counts chips for v5e and
#                         v6e, cores (two a chip) for v4 and v5p
#   --spot, --reserved    cheaper but taken away at any time; from your reservation
#   --runtime_version=    of the VM image (default: the generation's)
# status       the state of the request: WAITING_FOR_RESOURCES, ..., ACTIVE
# wait         until it is ACTIVE, or has failed
#   --poll=SECONDS        between questions (default 30)
# setup        sends the committed code to all hosts and installs it; again after a commit or a new slice
#   --bucket=NAME         mounts this Cloud Storage bucket at /mnt/switchx on every host as well, for
#                         programs that need files; switchx takes --model_dir=gs://... without it
#   --ref=COMMIT          what to send (default HEAD)
# run          starts switchx on all hosts, detached: it outlives your connection
#   -- COMMAND ARGS...    the switchx command line, as in -- train --gin_file=...
# logs         the end of the output
#   --worker=W            a host's number, or all (default all)
#   --lines=N, --follow   how much of it (default 20); go on with what comes
# stop         has the run save and leave, and waits for it; the same `run` continues
#   --worker=W            whom to signal (default all; one is enough, the others leave with it)
#   --signal=NAME         default TERM
#   --timeout=SECONDS     how long to wait (default 900)
# tensorboard  TensorBoard on the first host, seen at http://localhost:PORT here while it runs
#   --logdir=DIR          on the hosts, or where they read, as in gs://my-bucket/base/tensorboard
#   --port=PORT           default 6006
# delete       the slice and its disks; gcloud asks first. The bucket stays
set -euo pipefail
# shellcheck source=scripts/launch_common.sh
source "$(dirname "$(readlink -f "$0" 2>/dev/null || echo "$0")")/launch_common.sh"

name="" project="" zone="" topology="" spot="" reserved="" runtime_version="" poll=30 bucket="" ref=HEAD
worker=all lines=20 follow="" signal=TERM timeout=900 logdir="" port=6006

# gcloud_tpu GROUP VERB ARGS...
gcloud_tpu() {
  local command=(gcloud compute tpus "$@")
  [[ -z $project ]] || command+=("--project=$project")
  [[ -z $zone ]] || command+=("--zone=$zone")
  run "${command[@]}" ${flags[@]+"${flags[@]}"}
}

# on_hosts COMMAND [FLAG...]: a line of shell on the hosts that --worker names.
on_hosts() {
  local line=$1
  shift
  gcloud_tpu tpu-vm ssh "$name" "--worker=$worker" "--command=$line" "$@"
}

# What gcloud calls a topology, and the image of its generation.
accelerator() {
  [[ $topology =~ ^(v4|v5e|v5litepod|v5p|v6e)-[1-9][0-9]*$ ]] ||
    fail "--topology=$topology is none of v4-N, v5e-N, v5p-N, v6e-N, as in v5e-256"
  echo "${topology/#v5e-/v5litepod-}"
}

image() {
  case $topology in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5e-* | v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
  esac
}

create() {
  local type command
  require topology "as in --topology=v5e-256"
  at_most_one spot reserved
  type=$(accelerator)
  command=(queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type"
    "--runtime-version=${runtime_version:-$(image)}")
  [[ -z $spot ]] || command+=(--spot)
  [[ -z $reserved ]] || command+=(--reserved)
  gcloud_tpu "${command[@]}"
}

status() {
  gcloud_tpu queued-resources describe "$name" "--format=value(state.state)"
}

wait_until_active() {
  local state last=""
  if [[ -n $dry_run ]]; then
    status
    return
  fi
  while :; do
    state=$(status)
    [[ $state == "$last" ]] || echo "$me: $name is $state" >&2
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        echo "$me: $name will not become active; delete it and create it again" >&2
        exit 1
        ;;
    esac
    last=$state
    sleep "$poll"
  done
}

# The code goes to a folder of its own for each commit, so that a run in progress keeps its own.
setup() {
  local commit folder archive line
  commit=$(git -C "$repository" rev-parse --short=12 --verify --quiet "$ref^{commit}") ||
    fail "--ref=$ref is not a commit of $repository"
  [[ -z $(git -C "$repository" status --porcelain) ]] ||
    echo "$me: note: uncommitted changes are not sent, only commit $commit" >&2
  folder=switchx-$commit
  archive=$repository/build/$folder.tar.gz
  line="{ [ -L switchx ] || [ ! -e switchx ] || { echo '~/switchx is in the way: rename it' >&2; exit 2; }; }"
  line="$line && tar -xzf $folder.tar.gz && ln -sfn $folder switchx && switchx/scripts/tpu_host.sh install"
  [[ -z $bucket ]] || line="$line && switchx/scripts/tpu_host.sh mount $bucket"
  run mkdir -p "$repository/build"
  run git -C "$repository" archive --format=tar.gz "--prefix=$folder/" "--output=$archive" "$commit"
  gcloud_tpu tpu-vm scp "$archive" "$name:" --worker=all
  on_hosts "$line"
}

logs() {
  on_hosts "switchx/scripts/tpu_host.sh log $lines${follow:+ follow}"
}

start() {
  require_switchx_command
  on_hosts "SWITCHX_JOB_SECRET=$(quote "$(job_secret)") switchx/scripts/tpu_host.sh start $(quote "${rest[@]}")"
}

stop() {
  [[ $signal =~ ^[A-Z0-9]+$ ]] || fail "--signal=$signal is not a signal; TERM saves, KILL does not"
  on_hosts "switchx/scripts/tpu_host.sh stop $signal $timeout"
}

tensorboard() {
  require logdir "as in --logdir=/mnt/switchx/base/tensorboard"
  worker=0
  on_hosts "switchx/scripts/tpu_host.sh tensorboard $(quote "$logdir") $port" "--ssh-flag=-L $port:localhost:$port"
}

subcommand=${1-}
shift || true
common="name project zone gcloud_flag"
case $subcommand in
  create) parse "$common topology runtime_version" "spot reserved" "$@" ;;
  status | delete) parse "$common" "" "$@" ;;
  wait) parse "$common poll" "" "$@" ;;
  setup) parse "$common bucket ref" "" "$@" ;;
  run) parse "$common" "" "$@" ;;
  logs) parse "$common worker lines" follow "$@" ;;
  stop) parse "$common worker signal timeout" "" "$@" ;;
  tensorboard) parse "$common logdir port" "" "$@" ;;
  -h | --help) usage; exit ;;
  *) fail "'$subcommand' is none of create, status, wait, setup, run, logs, stop, tensorboard, delete; see --help" ;;
esac
[[ $subcommand == run ]] || ((${#rest[@]} == 0)) || fail "$subcommand takes no switchx command"
require name "as in --name=pod"
IFS=, read -r -a names <<<"$name"
for name in "${names[@]}"; do require_name name; done
((${#names[@]} == 1)) || [[ $subcommand != tensorboard && -z $follow ]] ||
  fail "--name=$(IFS=, && echo "${names[*]}") names several slices, and $subcommand follows one"
((${#names[@]} == 1 || ${#rest[@]} == 0)) || [[ ${rest[0]} == sweep ]] ||
  fail "--name=$(IFS=, && echo "${names[*]}") names several slices: that is for -- sweep run, not ${rest[0]}"
[[ -z $bucket ]] || require_bucket bucket
[[ $worker =~ ^(all|[0-9]+)$ ]] || fail "--worker=$worker is neither a host's number nor all"
for number in poll lines timeout port; do require_number "$number" 1; done
need gcloud "cloud.google.com/sdk/docs/install"
for name in "${names[@]}"; do case $subcommand in
  create) create ;;
  status) status ;;
  wait) wait_until_active ;;
  setup) setup ;;
  run) start ;;
  logs) logs ;;
  stop) stop ;;
  tensorboard) tensorboard ;;
  delete) gcloud_tpu queued-resources delete "$name" --force ;;
esac; done; exit # on the same line: bash must not read on in a file that has changed meanwhile
