#!/usr/bin/env bash
# Checks the project on this machine's accelerator in at most five minutes and writes one JSON: the core tests on every
# device, the agreement with the recorded arrays, and the speed of tags and class maps in float32 and bfloat16.
#   GPU_CHECK_OUT=  where the JSON goes (default runs/gpu_check.json)
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
exec "$PY" -m tests.gpu_check --out "${GPU_CHECK_OUT:-runs/gpu_check.json}" "$@"
