#!/usr/bin/env bash
# Reads photos from an object store and writes runs to one: a server that speaks S3 (moto) on 127.0.0.1, with s3fs, in an
# environment of its own.
#   STORES=   where that environment lives (default .venv-stores; about 200 MB, made once)
#   --if-possible  leave it at a line of explanation where the packages cannot be installed
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
STORES=${STORES:-$ROOT/.venv-stores}
wanted=$(cat tests/stores/requirements.txt)
log=$(mktemp)
make_stores() {
  [ "$(cat "$STORES/.installed" 2> /dev/null)" = "$wanted" ] && return
  echo "setting up $STORES (about 200 MB, once)" >&3
  # Over the project's environment: what is there is used, and nothing is installed into it.
  "$PY" -m venv --clear "$STORES" &&
    "$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      > "$("$STORES/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth" &&
    "$STORES/bin/python" -m pip --disable-pip-version-check -q install --retries 3 -r tests/stores/requirements.txt &&
    echo "$wanted" > "$STORES/.installed"
}
if ! make_stores 3>&2 > "$log" 2>&1; then
  reason=$({ grep -iE 'error' "$log" || cat "$log"; } | tail -n 1)
  rm -f "$log"
  echo "object stores were not tried: the packages cannot be installed here (${reason:-no reason given})" >&2
  [ "${1:-}" = --if-possible ] && exit 0
  exit 2
fi
rm -f "$log"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
PYTHONPATH=$ROOT "$STORES/bin/python" -m tests.stores.check_stores
