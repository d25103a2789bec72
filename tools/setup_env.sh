#!/usr/bin/env bash
# Makes the virtual environment once and leaves its interpreter in $PY. Sourced by the other scripts.
#   PYTHON=  interpreter to build it with (default python3, >= 3.10)
#   VENV=    where it lives (default .venv in the checkout)
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
PYTHON=${PYTHON:-python3}
PY=$VENV/bin/python
# Several torch threads beside another busy process are ten times slower with spinning OpenMP workers.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
stamp=$VENV/.tagclip-installed
want=$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" | cksum)
if [ ! -x "$PY" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$want $ROOT" ]; then
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $PYTHON is older than Python 3.10; set PYTHON=" >&2; exit 2; }
  echo "setting up $VENV (about 3 minutes and 6 GB, once)" >&2
  [ -x "$PY" ] || "$PYTHON" -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check -e "$ROOT[all]"
  echo "$want $ROOT" > "$stamp"
fi
