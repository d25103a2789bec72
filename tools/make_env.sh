#!/usr/bin/env bash
# Makes the environment that setup_env.sh asks for, or returns at once where it is complete.
# A step that fails ends with one line: what, why, what to do.
set -euo pipefail
: "${ROOT:?} ${VENV:?} ${REUSE:?}"
PY=$VENV/bin/python
STAMP=$VENV/.tagclip-installed
LOG=$(mktemp "${TMPDIR:-/tmp}/tagclip-install.XXXXXX")
trap 'rm -rf "$LOG.build"' EXIT

note() { printf '%s\n' "$*" >&2; }
fail() { # what, why, what to do
  note "error: $1: $2; $3"
  [ -s "$LOG" ] || rm -f "$LOG"
  exit 2
}
logged() { "$@" > "$LOG" 2>&1 < /dev/null; }
why() { { grep -E '^ *(ERROR|error|fatal|E:|OSError|.*Error:)' "$LOG" || cat "$LOG"; } | grep -v 'for help visit' | tail -n 1 | sed 's/^ *\(ERROR: \)*//'; }
pip() { logged "$PY" -m pip --disable-pip-version-check "$@"; }

check_python() {
  command -v "${PYTHON:-python3}" > /dev/null || fail "no interpreter" "${PYTHON:-python3} is not on the PATH" \
    "install Python 3.10 to 3.14 (Debian, Ubuntu: apt-get install python3 python3-venv) or set PYTHON="
  "${PYTHON:-python3}" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || fail \
    "PYTHON=${PYTHON:-python3}" "it is $("${PYTHON:-python3}" -V 2>&1), tried are 3.10 to 3.14" "set PYTHON= to one of these"
}

# The same interpreter must have made it: PYTHON= beside an older environment would otherwise be ignored in silence.
check_version() {
  local version='import sys; print("%d.%d" % sys.version_info[:2])'
  [ -z "$PYTHON" ] || [ "$("$PYTHON" -c "$version")" = "$("$PY" -c "$version")" ] || fail \
    "PYTHON=$PYTHON" "$VENV was made by Python $("$PY" -c "$version")" "set VENV= to another folder, or delete that one"
}

make_venv() {
  local python=${PYTHON:-python3} clear=
  if "$PY" -m pip --version > /dev/null 2>&1; then return; fi
  if [ -L "$PY" ] && [ ! -e "$PY" ]; then clear=--clear; fi # the interpreter it was made by is gone
  if "$python" -c 'import venv, ensurepip' 2> /dev/null; then
    logged "$python" -m venv $clear "$VENV" || fail "making $VENV" "$(why)" "fix that, or delete $VENV, and start again"
  elif logged "$python" -m virtualenv --version; then
    logged "$python" -m virtualenv $clear "$VENV" || fail "making $VENV" "$(why)" "fix that and start again"
  elif logged virtualenv --version; then
    logged virtualenv $clear --python "$python" "$VENV" || fail "making $VENV" "$(why)" "fix that and start again"
  else
    fail "making $VENV" "$python has neither venv with ensurepip nor virtualenv" \
      "apt-get install python3-venv (Debian, Ubuntu), or $python -m pip install virtualenv, and start again"
  fi
}

# Puts the packages of PYTHON's environment behind the new environment's own, and holds on to its torch.
reuse_packages() {
  local torch
  torch=$("${PYTHON:-python3}" -c 'import importlib.metadata as m, torch; print(m.version("torch"))' 2> "$LOG") || fail \
    "VENV=system" "${PYTHON:-python3} cannot import torch" "set PYTHON= to an interpreter that can, or leave VENV=system out"
  "${PYTHON:-python3}" -c 'import sys; print(*[p for p in sys.path if p.endswith(("site-packages", "dist-packages"))], sep="\n")' \
    > "$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tagclip-reused.pth"
  echo "torch==$torch" > "$VENV/tagclip-constraints.txt"
}

install_packages() {
  local constraint=()
  if [ "$REUSE" = 1 ]; then reuse_packages && constraint=(-c "$VENV/tagclip-constraints.txt"); fi
  pip install -e "$ROOT[all]" "${constraint[@]}" || fail "installing the packages" "$(why)" \
    "see $LOG, check the network and the disk (6 GB), and start again"
}

# What is missing to build a C++ extension; nothing where it can be built.
missing_for_build() {
  if ! command -v "${CXX:-c++}" > /dev/null; then echo "a C++ compiler (g++)"; return; fi
  "$PY" -c 'import sys, sysconfig, pathlib
if not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file():
    print("the headers of Python (python%d.%d-dev)" % sys.version_info[:2])'
}

# pydensecrf2 is a source distribution that pins a Cython whose C++ does not compile from Python 3.13 on.
install_crf() {
  if "$PY" -c 'import pydensecrf.densecrf' 2> /dev/null; then return; fi
  local missing
  missing=$(missing_for_build)
  if [ -n "$missing" ]; then
    note "no pydensecrf: building it needs $missing; torch computes the CRF in its place (only --preset reference needs pydensecrf); to have it, install that and start again"
  elif ! pip install --target "$LOG.build" setuptools wheel "cython>=3" || ! PYTHONPATH=$LOG.build \
    pip install --no-deps --no-build-isolation "pydensecrf2==1.1" || ! logged "$PY" -c 'import pydensecrf.densecrf'; then
    note "no pydensecrf: it does not build here ($(why)); torch computes the CRF in its place (only --preset reference needs pydensecrf)"
  fi
}

# mmcv and mmsegmentation ask for opencv-python by name, which wants X libraries; the headless build does not.
check_cv2() {
  local error library version
  error=$("$PY" -c 'import cv2' 2>&1) && return
  library=$(sed -n 's/^ImportError: \([^ :]*\): cannot open shared object file.*/\1/p' <<< "$error")
  [ -n "$library" ] || fail "import cv2" "$(tail -n 1 <<< "$error")" "delete $VENV and start again"
  version=$("$PY" -c 'from importlib.metadata import version; print(version("opencv-python"))')
  pip uninstall -y opencv-python && pip install --no-deps --force-reinstall "opencv-python-headless==$version" \
    && logged "$PY" -c 'import cv2' || fail "import cv2" "$(why)" \
    "install the system libraries (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1) and start again"
  note "no $library on this machine: opencv-python-headless $version takes the place of opencv-python"
}

# A compiler that came later is a reason to look again.
wanted() { echo "$(cat "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/tools/make_env.sh" | cksum) $ROOT ${1:-}"; }

if [ -x "$PY" ]; then check_version; fi
if [ ! -x "$PY" ] || [ "$(cat "$STAMP" 2> /dev/null)" != "$(wanted "$(missing_for_build)")" ]; then
  check_python
  note "setting up $VENV (about 3 minutes and 6 GB, once)"
  make_venv
  install_packages
  check_cv2
  install_crf
  wanted "$(missing_for_build)" > "$STAMP"
fi
rm -f "$LOG"
