#!/usr/bin/env bash
# Installs and tests the committed project on a bare Debian: debootstrap's smallest system, without X libraries.
#   bash tests/fresh_machine.sh trixie        # bookworm (Python 3.11), trixie (3.13) or forky (3.14)
#   COMPILER=      1 (default): with g++ and Python's headers; 0: without
#   DEMO_SCENES= DEMO_STEPS=   size of the demo (default 8 and 10)
#   FRESH_DIR=     where systems, logs and the shared pip cache live (default ${TMPDIR:-/tmp}/tagclip-fresh)
#   KEEP=1         leave the system there (6 GB)
# Needs root. The Debian mirror and pip's index, proxy and certificates are this machine's own; its constraints and
# local packages are not taken over: a fresh machine gets the newest releases. The last line is a row of
# docs/results/fresh-machines.md.
set -euo pipefail
SUITE=${1:?suite, such as trixie}
COMPILER=${COMPILER:-1}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FRESH_DIR=${FRESH_DIR:-${TMPDIR:-/tmp}/tagclip-fresh}
SYSTEM=$FRESH_DIR/$SUITE-compiler$COMPILER
HOME_IN=/home/someone

fail() { echo "error: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "tests/fresh_machine.sh needs root: chroot and mount"
# Mounts live and end in a namespace of the run's own, so that deleting the system can never reach this machine's files.
if [ -z "${FRESH_NAMESPACE:-}" ]; then
  rm -rf --one-file-system "$SYSTEM"
  code=0
  FRESH_NAMESPACE=1 unshare --mount --propagation private --pid --fork --kill-child bash "$0" "$@" || code=$?
  if [ "${KEEP:-0}" != 1 ]; then rm -rf --one-file-system "$SYSTEM"; fi
  exit "$code"
fi

bootstrap() {
  local mirror script=/usr/share/debootstrap/scripts/$SUITE packages=python3,python3-venv,ca-certificates,git
  command -v debootstrap > /dev/null || apt-get install -qq -y debootstrap > /dev/null
  mirror=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|//p' | head -n 1)
  [ -n "$mirror" ] || fail "apt on this machine names no Debian mirror"
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # an older debootstrap does not know a newer suite
  if [ "$COMPILER" = 1 ]; then packages+=,python3-dev,g++; fi
  mkdir -p "$SYSTEM"
  mkdir -p "$FRESH_DIR/debs"
  debootstrap --cache-dir="$FRESH_DIR/debs" --variant=minbase --include="$packages" "$SUITE" "$SYSTEM" "$mirror" "$script" > "$SYSTEM.debootstrap.log" \
    || fail "debootstrap $SUITE failed, see $SYSTEM.debootstrap.log"
}

# A file of this machine, seen at the same place inside.
share() {
  if mountpoint -q "$SYSTEM$1"; then return; fi
  mkdir -p "$SYSTEM${1%/*}" && touch "$SYSTEM$1"
  mount --bind "$1" "$SYSTEM$1"
  mount -o remount,bind,ro "$SYSTEM$1"
}

# pip inside gets the settings of pip here (index, proxy, certificates), without local packages and constraints.
carry_pip_settings() {
  local line key value
  echo "[global]" > "$SYSTEM/etc/pip.conf"
  python3 -m pip config list | while IFS= read -r line; do
    key=${line%%=*} key=${key##*.} value=${line#*=\'} value=${value%\'}
    case $key in
      cert | client-cert) share "$value" ;;
      index-url | extra-index-url | proxy | trusted-host | timeout | default-timeout | retries) ;;
      *) continue ;;
    esac
    if [[ $value != *file:* ]] && ! grep -q "^$key = " "$SYSTEM/etc/pip.conf"; then
      echo "$key = $value" >> "$SYSTEM/etc/pip.conf"
    fi
  done
  mkdir -p "$FRESH_DIR/pip-cache" "$SYSTEM$HOME_IN/.cache/pip"
  mount --bind "$FRESH_DIR/pip-cache" "$SYSTEM$HOME_IN/.cache/pip"
}

prepare() {
  bootstrap
  mount --rbind /dev "$SYSTEM/dev"
  mount -t proc proc "$SYSTEM/proc"
  cp /etc/resolv.conf /etc/hosts "$SYSTEM/etc/"
  mkdir -p "$SYSTEM$HOME_IN"
  carry_pip_settings
  git clone --quiet --no-hardlinks "$ROOT" "$SYSTEM$HOME_IN/tagclip"
}

inside() { # a clean environment, as after a login
  chroot "$SYSTEM" /usr/bin/env -i HOME="$HOME_IN" LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    DEMO_SCENES="${DEMO_SCENES:-8}" DEMO_STEPS="${DEMO_STEPS:-10}" bash -c "cd $HOME_IN/tagclip && $1"
}

# Runs a command inside, with its output in a log; prints minutes:seconds, and "failed" where it failed.
timed() {
  local start=$SECONDS failed=
  inside "$2" > "$SYSTEM.$1.log" 2>&1 || failed=" (failed: $(tail -n 1 "$SYSTEM.$1.log"))"
  printf '%d:%02d%s' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$failed"
}

prepare
setup=$(timed setup "bash -c '. tools/setup_env.sh'")
demo="-" tests="-"
case $setup in *failed*) ;; *)
  demo=$(timed demo "bash tools/demo.sh")
  tests=$(timed test "bash tools/test.sh")
  ;;
esac
counts=$(grep -E '[0-9]+ (passed|failed)' "$SYSTEM.test.log" 2> /dev/null | tail -n 1 | sed 's/^=* *//; s/ in [0-9.]*s.*//; s/, [0-9]* warnings*//') \
  || true # the tests may not have begun
about=$(inside '.venv/bin/python - 2>/dev/null' << 'PY'
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"

cv2 = "headless" if of("opencv-python") == "-" else "full"
print(platform.python_version(), "|", "pydensecrf" if find_spec("pydensecrf") else "torch", "|",
      " ".join(f"{name} {of(name)}" for name in ("torch", "numpy", "pillow")), "cv2", cv2)
PY
) || about="- | - | -"
IFS='|' read -r python engine versions <<< "$about"
libraries=$(inside 'ldconfig -p | grep -cE "lib(X11|xcb|GL)\\.so"' || true)
echo "| $SUITE | ${python// /} | $([ "$COMPILER" = 1 ] && echo yes || echo no) | $libraries | $setup | $demo | $tests |" \
  "${counts:-none} |$engine|$versions, commit $(git -C "$SYSTEM$HOME_IN/tagclip" rev-parse --short HEAD) |" | tee -a "$FRESH_DIR/rows.md"
case "$setup$demo$tests" in *failed*) exit 1 ;; esac
