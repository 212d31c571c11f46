#!/usr/bin/env bash
# What has never met a GPU, measured and checked by one command, most important first.
#
#   scripts/on_gpu.sh [--out=DIR] [--set=DIR] [--platform=cuda] [--tiny] [PART...]
#   scripts/on_gpu.sh pack DIR        where there is a network: wheels and a prepared set to carry
#
# For a machine with JAX for CUDA, flax, optax and orbax, and no network. Says what is missing, then
# runs the parts checks, step, layer, profile and sweep, each under 8 minutes; a part that has
# its DIR/PART.json (default: gpu_results) is skipped, so the same command goes on after a break.
# --set is the folder that `pack` made: what is missing is installed from its wheels, beside what is
# there, and its prepared set is what the sweep trains on. TensorFlow is never imported.
# --platform=cpu --tiny tries the same code on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=gpu_results SET=gpu_set PLATFORM=cuda TINY=() PARTS=()
export PYTHONPATH="$PWD:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH}"

if [ "${1:-}" = pack ]; then
  shift
  exec "$PYTHON" -m gpu.pack "$@"
fi
for argument in "$@"; do
  case $argument in
    --out=*) OUT=${argument#*=} ;;
    --set=*) SET=${argument#*=} ;;
    --platform=*) PLATFORM=${argument#*=} ;;
    --tiny) TINY=(--tiny) ;;
    -*) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) PARTS+=("$argument") ;;
  esac
done
[ ${#PARTS[@]} -gt 0 ] || PARTS=(checks step layer profile sweep)
mkdir -p "$OUT"
# Nearly all of the card's memory.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

names=$("$PYTHON" -m gpu.missing --names)
if [ -n "$names" ] && [ -d "$SET/wheels" ]; then
  site=$(mktemp -d)
  # shellcheck disable=SC2086
  "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links="$SET/wheels" --target="$site" \
    $names
  export PYTHONPATH="$PYTHONPATH:$site"
fi
"$PYTHON" -m gpu.missing

status=0
for part in "${PARTS[@]}"; do
  if [ -e "$OUT/$part.json" ]; then
    echo "== $part: done before, $OUT/$part.json"
    continue
  fi
  echo "== $part"
  if timeout --signal=INT --kill-after=20 480 "$PYTHON" -m "gpu.$part" --out="$OUT" --set="$SET" \
    --platform="$PLATFORM" "${TINY[@]}" 2>&1 | tee -a "$OUT/log.txt"; then
    "$PYTHON" -m gpu.pictures --out="$OUT" --platform=cpu || true
  else
    echo "== $part did not finish: run the same command again" | tee -a "$OUT/log.txt"
    status=1
  fi
done
ls -l "$OUT"
exit $status
