#!/usr/bin/env bash
# Runs all tests, after setting up the environment if need be. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
"$PY" -m ruff check .
exec "$PY" -m pytest "$@"
