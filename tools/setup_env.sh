#!/usr/bin/env bash
# Leaves the interpreter of the project's environment in $PY, and makes that environment first if need be.
# Sourced by the other scripts.
#   PYTHON=  interpreter to build it with (default python3; 3.10 to 3.14)
#   VENV=    where it lives (default .venv in the checkout). VENV=system: .venv-system, which reuses torch and every
#            other fitting package of the environment that PYTHON belongs to, and leaves that environment untouched
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
REUSE=0
if [ "$VENV" = system ]; then VENV=$ROOT/.venv-system REUSE=1; fi
PY=$VENV/bin/python
# Several torch threads beside another busy process are ten times slower with spinning OpenMP workers.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
ROOT=$ROOT VENV=$VENV REUSE=$REUSE PYTHON=${PYTHON:-} bash "$ROOT/tools/make_env.sh"
