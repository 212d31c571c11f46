#!/usr/bin/env bash
# Installs a wheel with plain pip into a fresh virtual environment, and uses it in an empty folder.
#
#   scripts/test_wheel.sh dist/switchx-*.whl        PYTHON=python3.12 for another Python
set -euo pipefail

wheel=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/pip" install --quiet --disable-pip-version-check "$wheel"
"$bin/pip" check
if "$bin/pip" list --disable-pip-version-check | grep -E '^(seqio-nightly|tfds-nightly|t5) '; then
  echo "A package came along that unpacks over seqio or TFDS." >&2
  exit 1
fi

mkdir "$folder/empty"
cd "$folder/empty"
unset PYTHONPATH
export SWITCHX_CACHE=$folder/cache
"$bin/switchx" --help >/dev/null
"$bin/switchx" info --gin_file=configs/models/switch_base_8.gin | head -1
"$bin/switchx" train --gin.TRAIN_STEPS=2 --gin.EVAL_PERIOD=2 --gin.EVAL_STEPS=1 --gin.BATCH_SIZE=8
test -s runs/quickstart/metrics.jsonl
echo '{"text": "Return the __ of the list."}' | "$bin/switchx" infer --model_dir=runs/quickstart
echo "The wheel works: $(basename "$wheel")"
