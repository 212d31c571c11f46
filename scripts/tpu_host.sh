#!/usr/bin/env bash
# What launch_tpu.sh has each TPU VM do; it comes there with the code, and runs in that checkout.
#
#   install                  a Python of at least 3.11 where there is none, then switchx for TPUs
#   mount BUCKET             the Cloud Storage bucket at /mnt/switchx
#   start COMMAND ARGS...    switchx COMMAND ARGS..., which outlives this ssh connection
#   stop SIGNAL SECONDS      the signal to it, then wait for its end
#   log LINES [follow]       the end of its output
#   tensorboard LOGDIR PORT  TensorBoard, on this host's loopback
#
# One run at a time, as one process at a time can hold the chips: its process number and output are
# in ~/switchx-run.
set -euo pipefail
me=tpu_host
state=$HOME/switchx-run
mount_point=/mnt/switchx

fail() {
  printf '%s: %s\n' "$me on $(hostname)" "$*" >&2
  exit 2
}

# One that is new enough and can make an environment, which Debian's packages split off.
find_python() {
  local candidate test='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c "$test" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

apt() {  # a VM that has just booted is often still installing updates: wait for its lock
  sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq "$@"
}

# The images are Ubuntu 22.04, whose Python is 3.10.
install() {
  local python
  if ! find_python >/dev/null; then
    sudo add-apt-repository -y ppa:deadsnakes/ppa
    apt update
    apt install -y python3.12 python3.12-venv
  fi
  python=$(find_python)
  apt install -y git make
  make install EXTRAS="tpu cloud" PYTHON="$python"
}

# Directories are renamed when a checkpoint is complete, and every host must see it at once: so renames
# are allowed, and metadata is never cached (gcsfuse caches it for ever on TPU machines).
mount_bucket() {
  if mountpoint -q "$mount_point"; then
    [[ $(findmnt -n -o SOURCE "$mount_point") == "$1" ]] ||
      fail "$mount_point holds another bucket, $(findmnt -n -o SOURCE "$mount_point"), not $1"
    return
  fi
  command -v gcsfuse >/dev/null || install_gcsfuse
  sudo mkdir -p "$mount_point"
  sudo chown "$(id -u):$(id -g)" "$mount_point"
  gcsfuse --implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 \
    --metadata-cache-negative-ttl-secs=0 "$1" "$mount_point"
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc source=https://packages.cloud.google.com/apt
  curl -fsS "$source/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $source gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  apt update
  apt install -y gcsfuse
}

# The number in the file may since belong to another program.
running() {
  [[ -s $state/pid ]] && grep -qs switchx "/proc/$(cat "$state/pid")/cmdline"
}

start() {
  running && fail "a run is in progress, process $(cat "$state/pid"); stop it first"
  case "$*" in # without the mount, checkpoints would fill this host's own disk
    *"$mount_point"/*) mountpoint -q "$mount_point" || fail "no bucket at $mount_point; mount it with setup --bucket" ;;
  esac
  mkdir -p "$state"
  rm -f "$state/pid"
  echo "tpu_host: $(date -u +%FT%TZ) switchx $*" >>"$state/log"
  (
    trap '' HUP
    .venv/bin/switchx "$@" &
    echo $! >"$state/pid"
    status=0
    wait $! || status=$?
    echo "tpu_host: $(date -u +%FT%TZ) switchx ended with status $status"
  ) </dev/null >>"$state/log" 2>&1 &
  until [[ -s $state/pid ]]; do sleep 0.1; done
  echo "tpu_host on $(hostname): started process $(cat "$state/pid"), output in $state/log"
}

stop() {
  local end=$((SECONDS + $2))
  running || fail "no run is in progress"
  kill "-$1" "$(cat "$state/pid")"
  while running; do
    ((SECONDS < end)) || fail "still running after $2 s; wait longer with --timeout, or end it unsaved with --signal=KILL"
    sleep 0.5
  done
  show_log 3
}

show_log() {
  local follow=()
  [[ -e $state/log ]] || fail "nothing has run yet"
  [[ ${2-} != follow ]] || follow=(-F)
  tail -n "$1" ${follow[@]+"${follow[@]}"} "$state/log" | sed -u "s/^/$(hostname): /"
}

# In an environment of its own: switchx's is exactly what its lock files say.
tensorboard() {
  local environment=$HOME/tensorboard
  if [[ ! -x $environment/bin/tensorboard ]]; then
    "$(find_python)" -m venv "$environment"
    "$environment/bin/pip" install --quiet tensorboard gcsfs
  fi
  exec "$environment/bin/tensorboard" --logdir="$1" --port="$2"
}

cd "$(dirname "$0")/.."
action=${1:?what to do}
shift
case $action in
  install) install ;;
  mount) mount_bucket "$1" ;;
  start) start "$@" ;;
  stop) stop "$1" "$2" ;;
  log) show_log "$@" ;;
  tensorboard) tensorboard "$1" "$2" ;;
  *) fail "cannot '$action'; can install, mount, start, stop, log, tensorboard" ;;
esac
