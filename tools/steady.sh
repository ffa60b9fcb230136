#!/usr/bin/env bash
# Runs the test suite TIMES times in a row (10) while BURNERS processes (2) compute beside it, and ends at the first
# failure: what passes here is free of flakes. Each run's last line is printed; PYTEST_ARGS chooses tests.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${VENV:-.venv}/bin/python
burners=()
stop() { [ ${#burners[@]} -eq 0 ] || kill "${burners[@]}" 2>/dev/null; }
trap stop EXIT
for _ in $(seq "${BURNERS:-2}"); do
    "$python" -c 'while True: pass' &
    burners+=($!)
done
for run in $(seq "${TIMES:-10}"); do
    log=$(mktemp)
    # shellcheck disable=SC2086 - the arguments are words
    if ! CI=true "$python" -m pytest -q -n "${WORKERS:-2}" --dist loadgroup ${PYTEST_ARGS:-} >"$log" 2>&1; then
        grep '^FAILED\|^ERROR' "$log"
        printf 'run %s failed: %s\n' "$run" "$log"
        exit 1
    fi
    printf 'run %s: %s\n' "$run" "$(tail -n 1 "$log")"
    rm -f "$log"
done
