#!/usr/bin/env bash
# Re-resolves requirements/*.lock: names and versions only, for Python 3.11 and newer.
# base.lock holds what switchx needs, and t5 for its tasks; each extra's lock, what that extra adds.
# Needs uv on the PATH. To move one package: scripts/lock.sh --upgrade-package jax
set -euo pipefail
cd "$(dirname "$0")/.."

resolve() {  # resolve OUTPUT [uv options]: keeps the pins OUTPUT has unless asked to upgrade
  local output=$1; shift
  uv pip compile pyproject.toml requirements/t5.in --extra t5 --universal --python-version 3.11 \
    --quiet --no-header --no-annotate --overrides requirements/overrides.txt \
    --output-file "$output" "$@"
}

resolve requirements/base.lock "$@"
# Each keeps to the locks before it, so that any of them can be installed together.
earlier=(--constraints requirements/base.lock)
for extra in cloud wandb mlflow trackio dev tpu cuda plan; do
  whole=$(mktemp)
  resolve "$whole" --extra "$extra" "${earlier[@]}"
  earlier+=(--constraints "requirements/$extra.lock")
  grep -vxFf requirements/base.lock "$whole" >"requirements/$extra.lock"
  rm -f "$whole"
done
