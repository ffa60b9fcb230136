#!/usr/bin/env bash
# Resolves the lock files anew with uv, keeping the versions that are in them unless UPGRADE=1.
# torch is left out on purpose (see requirements-torch.lock): its own requirements stand in requirements-models.in.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "make lock needs uv (pip install uv)"; exit 1; }
compile=(uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-find-links
    --no-emit-package stellwerk)
[ "${UPGRADE:-}" = 1 ] && compile+=(--upgrade)

lock() { # lock FILE "first line" arguments...: uv reads the old file for its versions, then the comment goes on top
    local file=$1 comment=$2
    shift 2
    "${compile[@]}" "$@" -o "$file" >/dev/null
    printf '# %s Made by tools/lock.sh.\n%s\n' "$comment" "$(grep -v '^# ' "$file")" >"$file"
    echo "wrote $file"
}

# The platform depends on the SDK, which [tool.uv.sources] finds in sdk/; neither stands in a lock file.
lock requirements.lock "The SDK and the five services." --extra otel pyproject.toml
lock requirements-models.lock "What runs models, but for torch." -c requirements.lock \
    --extra sklearn --extra onnx --extra unsafe sdk/pyproject.toml requirements-models.in
lock requirements-build.lock "What builds the package." -c requirements.lock requirements-build.in
lock requirements-dev.lock "The developers' tools." -c requirements.lock -c requirements-models.lock -c requirements-build.lock \
    requirements-dev.in
# Other vendors' clients live in environments of their own: their requirements conflict with ours and each other's.
lock tests/vendors/kserve.lock "KServe's client, for tests." tests/vendors/kserve.in
lock tests/vendors/mlserver.lock "MLServer's client, for tests." tests/vendors/mlserver.in
