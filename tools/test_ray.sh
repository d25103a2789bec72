#!/usr/bin/env bash
# Runs the tests of the Ray engine, in an environment of its own that adds Ray to the project's.
#   RAY_ENV=  where that environment lives (default .venv-ray; about 200 MB, made once)
#   --if-possible  leave it at a line of explanation where Ray cannot be installed
# Other arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
RAY_ENV=${RAY_ENV:-$ROOT/.venv-ray}
optional=
if [ "${1:-}" = --if-possible ]; then optional=1; shift; fi
log=$(mktemp)
make_ray() {
  "$RAY_ENV/bin/python" -c 'import ray' 2> /dev/null && return
  echo "setting up $RAY_ENV (about 200 MB, once)" >&3
  "$PY" -m venv --clear "$RAY_ENV" &&
  "$PY" -c 'import site; print(site.getsitepackages()[0])' > \
    "$("$RAY_ENV/bin/python" -c 'import site; print(site.getsitepackages()[0])')/project.pth" &&
  "$RAY_ENV/bin/python" -m pip --disable-pip-version-check -q install --retries 3 'ray>=2.40,<3'
}
if ! make_ray 3>&2 > "$log" 2>&1; then
  reason=$({ grep -iE 'error' "$log" || cat "$log"; } | tail -n 1)
  rm -f "$log"
  echo "the Ray engine was not tested: Ray cannot be installed here (${reason:-no reason given})" >&2
  [ -n "$optional" ] && exit 0
  exit 2
fi
rm -f "$log"
export PYTHONPATH=$ROOT OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} RAY_USAGE_STATS_ENABLED=0
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export no_proxy=127.0.0.1,127.0.0.2,localhost
exec "$RAY_ENV/bin/python" -m pytest -q tests/wsss/engines "$@"
