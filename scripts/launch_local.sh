#!/usr/bin/env bash
# Runs one switchx command as several processes of this machine, as a pod would run it on several hosts.
#
#   scripts/launch_local.sh --processes=2 --cpu_devices=1 -- train --gin.DATA_SHARDS=2 --model_dir=runs/two
#
#   scripts/launch_local.sh --workers=3 -- sweep run --gin_file=... --sweep_dir=sweeps/base
#
# Every process gets the same command line, and --coordinator_address, --num_processes and --process_id.
# Their lines come out marked [0], [1], ... Ctrl-C and SIGTERM go to all of them, and they save and leave
# together. If one fails the others are ended; the exit status is that of the first to fail.
#
#   --processes=N      how many (default 2)
#   --workers=N        instead: so many processes that know nothing of each other, for `sweep run`; one that
#                      fails ends no other
#   --cpu_devices=K    simulated CPU devices of each process (default: what the machine has)
#   --port=PORT        of process 0, where the others meet (default: a free one)
#   --grace=SECONDS    from a signal, or the failure of one, until the rest are killed (default 60)
#   --switchx=PROGRAM  what to run (default: .venv/bin/switchx of this checkout)
#   --dry_run          print the commands, run nothing
set -euo pipefail
# shellcheck source=scripts/launch_common.sh
source "$(dirname "$(readlink -f "$0" 2>/dev/null || echo "$0")")/launch_common.sh"

processes="" workers="" cpu_devices="" port="" grace=60 switchx="$repository/.venv/bin/switchx"
pids=() readers=() pipes="" status="" deadline=""

# A port nobody answers on. Below 32768, where Linux takes the ports of outgoing connections from.
free_port() {
  local candidate
  for _ in {1..100}; do
    candidate=$((10000 + RANDOM % 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "found no free port; name one with --port"
}

mark_lines() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '[%s] %s\n' "$1" "$line"
  done
}

# start INDEX COMMAND...: in a process group of its own (`set -m`), so that a ctrl-C of the terminal
# reaches it through us and only once, and so that its children can be ended with it.
start() {
  local pipe="$pipes/$1"
  mkfifo "$pipe"
  mark_lines "$1" <"$pipe" &
  readers+=($!)
  shift
  "$@" >"$pipe" 2>&1 </dev/null &
  pids+=($!)
}

# A signal goes on to every process, not to its children; they have until the deadline to save.
forward() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    kill "-$1" "$pid" 2>/dev/null || true
  done
  [[ -n $deadline ]] || deadline=$((SECONDS + grace))
}

kill_groups() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    kill -KILL -- "-$pid" 2>/dev/null || true
  done
}

# shellcheck disable=SC2329  # the trap of EXIT
leave() {
  kill_groups
  [[ -z $pipes ]] || rm -rf "$pipes"
}

# leave_to_us FLAG...: those that every process is told from here, which would silently win.
leave_to_us() {
  local argument flag
  for argument in "${rest[@]}"; do
    for flag in "$@"; do
      [[ ${argument%%=*} != "--$flag" ]] ||
        fail "'$argument' behind -- would be overridden by $me's own --$flag: leave it out, and say what you want with $me's options, before --"
    done
  done
}

# Collects the processes as they end; the first failure gives the others a deadline.
wait_for_all() {
  local running=("${!pids[@]}") still index code
  while ((${#running[@]})); do
    still=()
    for index in "${running[@]}"; do
      if kill -0 "${pids[index]}" 2>/dev/null; then
        still+=("$index")
        continue
      fi
      code=0
      wait "${pids[index]}" 2>/dev/null || code=$?
      if ((code)) && [[ -z $status ]]; then
        status=$code
        printf '%s: process %s ended with status %s\n' "$me" "$index" "$code" >&2
        [[ -n $deadline || -n $workers ]] || forward TERM
      fi
    done
    ((${#still[@]})) || return 0
    running=("${still[@]}")
    [[ -z $deadline ]] || ((SECONDS < deadline)) || kill_groups
    sleep 0.1
  done
}

# bash reads a script as it runs it; in a function, an update of this file cannot change a run in
# progress.
main() {
  parse "processes workers cpu_devices port grace switchx" "" "$@"
  at_most_one processes workers
  at_most_one port workers
  [[ -z $workers ]] || require_number workers 1
  processes=${processes:-${workers:-2}}
  require_number processes 1
  [[ -z $cpu_devices ]] || require_number cpu_devices 1
  [[ -z $port ]] || require_number port 1
  require_number grace 0
  require_switchx_command
  [[ -z $workers || ${rest[0]} == sweep ]] ||
    fail "--workers=$workers is for -- sweep run; '${rest[0]}' is one job of --processes"
  leave_to_us coordinator_address num_processes process_id ${cpu_devices:+cpu_devices}
  need "$switchx" "make install"
  [[ -n $port ]] || port=$(free_port)

  if [[ -z $dry_run ]]; then
    SWITCHX_JOB_SECRET=$(job_secret)
    export SWITCHX_JOB_SECRET
    pipes=$(mktemp -d)
    trap leave EXIT
    trap 'forward INT' INT
    trap 'forward TERM' TERM HUP
    set -m
  fi
  local process command
  for ((process = 0; process < processes; process++)); do
    command=("$switchx" "${rest[@]}" "--coordinator_address=127.0.0.1:$port"
      "--num_processes=$processes" "--process_id=$process")
    [[ -z $workers ]] || command=("$switchx" "${rest[@]}" --num_processes=1)
    [[ -z $cpu_devices ]] || command+=("--cpu_devices=$cpu_devices")
    if [[ -n $dry_run ]]; then run "${command[@]}"; else start "$process" "${command[@]}"; fi
  done
  [[ -z $dry_run ]] || exit 0
  wait_for_all
  kill_groups # children that a process left behind would keep its pipe open
  wait "${readers[@]}" || true
  exit "${status:-0}"
}

main "$@"
