#!/usr/bin/env bash
# Exports small runs in every format and reads them back with libraries that others wrote, in an environment of its own.
#   READERS=  where that environment lives (default .venv-exports; about 1 GB, made once)
#   OUT=      keep exports and the table (exports.md) in this folder, which must not exist yet
#   --if-possible  leave it at a line of explanation where the libraries cannot be installed
# Other arguments go to tests/exports/make_exports.py: --scenes 0, --voc FOLDER.
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
READERS=${READERS:-$ROOT/.venv-exports}
optional=
if [ "${1:-}" = --if-possible ]; then optional=1; shift; fi
wanted=$(cat tests/exports/requirements.txt tests/exports/ultralytics.txt)
log=$(mktemp)
make_readers() {
  [ "$(cat "$READERS/.installed" 2> /dev/null)" = "$wanted" ] && return
  echo "setting up $READERS (about 1 GB, once)" >&3
  "$PY" -m venv --clear "$READERS" &&
    "$READERS/bin/python" -m pip --disable-pip-version-check -q install --retries 3 -r tests/exports/requirements.txt &&
    "$READERS/bin/python" -m pip --disable-pip-version-check -q install --retries 3 --no-deps \
      --target "$READERS/ultralytics" -r tests/exports/ultralytics.txt &&
    echo "$wanted" > "$READERS/.installed"
}
if ! make_readers 3>&2 > "$log" 2>&1; then
  reason=$({ grep -iE 'error' "$log" || cat "$log"; } | tail -n 1)
  rm -f "$log"
  echo "exports were not read back: the libraries cannot be installed here (${reason:-no reason given})" >&2
  [ -n "$optional" ] && exit 0
  exit 2
fi
rm -f "$log"
if [ -z "${OUT:-}" ]; then
  OUT=$(mktemp -d)
  trap 'rm -rf "$OUT"' EXIT
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} YOLO_CONFIG_DIR=$READERS HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$PY" -m tests.exports.make_exports "$OUT" --scenes 3 "$@" > "$OUT.log" 2>&1 || { tail -n 20 "$OUT.log" >&2; exit 1; }
rm -f "$OUT.log"
env -u PYTHONPATH "$READERS/bin/python" tests/exports/read_back.py "$OUT" --table "$OUT/exports.md"
PYTHONPATH=$READERS/ultralytics "$PY" tests/exports/read_back.py "$OUT" --ultralytics --table "$OUT/ultralytics.md"
