#!/usr/bin/env bash
# Drives the review page in a real browser (tests/browser): Debian's chromium, Playwright for Python, axe-core.
# Installs what is missing: chromium and npm by apt-get (as root), Playwright by pip into an environment of its own that
# reuses the project's packages, axe-core by npm. Arguments go to pytest.
#   TAGCLIP_BROWSER=  a Chromium or Chrome to use (default: the one on the PATH)
#   BROWSER_VENV=     where that environment lives (default .venv-browser in the checkout)
#   TAGCLIP_SHOTS=    folder for screenshots (default: none are kept)
set -euo pipefail
. "$(dirname "$0")/setup_env.sh"
cd "$ROOT"
BROWSER_VENV=${BROWSER_VENV:-$ROOT/.venv-browser}
LOG=$(mktemp "${TMPDIR:-/tmp}/tagclip-browser.XXXXXX")

fail() { # what, why, what to do
  printf 'error: %s: %s; %s\n' "$1" "$2" "$3" >&2
  exit 2
}
logged() { "$@" > "$LOG" 2>&1 < /dev/null; }
why() { { grep -E '^ *(ERROR|error|E:|npm (ERR|error)|.*Error:)' "$LOG" || cat "$LOG"; } | tail -n 1 | sed 's/^ *//'; }

from_debian() { # package, why it is needed
  command -v apt-get > /dev/null || fail "no $1" "$2, and this system has no apt-get" "install $1 and start again"
  [ "$(id -u)" = 0 ] || fail "no $1" "$2" "run: sudo apt-get install $1, and start again"
  { logged apt-get update && logged env DEBIAN_FRONTEND=noninteractive apt-get install -y "$1"; } \
    || fail "apt-get install $1" "$(why)" "see $LOG, fix that and start again"
}

find_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" && return
  done
  return 1
}

if [ -z "${TAGCLIP_BROWSER:-}" ]; then
  find_browser > /dev/null || from_debian chromium "the review page is tested in a real browser"
  TAGCLIP_BROWSER=$(find_browser) || fail "chromium" "it is installed, but not on the PATH" "set TAGCLIP_BROWSER="
fi
[ -x "$TAGCLIP_BROWSER" ] || fail "TAGCLIP_BROWSER=$TAGCLIP_BROWSER" "no program there" "set it to a Chromium or Chrome"

if ! "$BROWSER_VENV/bin/python" -c 'import playwright, pytest, torch' 2> /dev/null; then
  logged "$PY" -m venv --clear "$BROWSER_VENV" || fail "making $BROWSER_VENV" "$(why)" "fix that and start again"
  "$PY" -c 'import sys; print(*[p for p in sys.path if p.endswith(("site-packages", "dist-packages"))], sep="\n")' \
    > "$("$BROWSER_VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tagclip-reused.pth"
  PLAYWRIGHT=$("$PY" -c 'import re; print(re.search(r"\"(playwright.*?)\"", open("setup.py").read())[1])')
  logged "$BROWSER_VENV/bin/python" -m pip --disable-pip-version-check install "$PLAYWRIGHT" \
    || fail "installing $PLAYWRIGHT" "$(why)" "see $LOG, check the network and start again"
fi

AXE=$BROWSER_VENV/node/node_modules/axe-core/axe.min.js
if [ ! -f "$AXE" ]; then
  command -v npm > /dev/null || from_debian npm "axe-core, which checks accessibility, comes from npm's registry"
  mkdir -p "$BROWSER_VENV/node"
  logged npm install --prefix "$BROWSER_VENV/node" --no-audit --no-fund --ignore-scripts "axe-core@^4.10" \
    || fail "installing axe-core" "$(why)" "see $LOG, check the network and start again"
fi
rm -f "$LOG"
export TAGCLIP_BROWSER TAGCLIP_AXE=$AXE PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$BROWSER_VENV/bin/python" -m pytest tests/browser "$@"
