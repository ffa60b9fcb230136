#!/usr/bin/env bash
# Installs other vendors' clients for the tests, each into .venv-vendors/NAME from tests/vendors/NAME.lock.
# Running it again is instant: a stamp holds the hash of what was installed.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
for lock in tests/vendors/*.lock; do
    name=$(basename "$lock" .lock)
    venv=.venv-vendors/$name
    key=$({ cat "$lock"; "$python" -V; pwd; } | sha256sum)
    [ "$(cat "$venv/.installed" 2>/dev/null)" = "$key" ] && continue
    start=$SECONDS
    printf '  %-62s' "$name's client (for tests)"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check --require-hashes --no-deps -r "$lock"
    printf '%s\n' "$key" >"$venv/.installed"
    printf '%4ds\n' $((SECONDS - start))
done
