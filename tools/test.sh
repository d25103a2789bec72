#!/usr/bin/env bash
# Runs all checks, after setting up the environment if need be: style, rules of import, types, tests. Arguments go to pytest.
# TEST_WORKERS=N: tests on N cores (otherwise on two where there are two; 0: in one process, for a debugger).
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
"$PY" - <<'EOF'
import importlib.metadata as metadata, platform
names = ("torch", "numpy", "open_clip_torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "pydensecrf2", "pytest")
found = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
print("Python", platform.python_version(), *(f"{name} {found.get(name.lower(), 'missing')}" for name in names), sep="; ")
EOF
"$PY" -m ruff check .
"$(dirname "$PY")/lint-imports" --no-cache
"$PY" -m mypy
workers=${TEST_WORKERS:-$("$PY" -c 'import os; print(min(2, os.cpu_count() or 1))')}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
exec "$PY" -m pytest --numprocesses="$workers" --dist=loadfile "$@"
