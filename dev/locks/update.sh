#!/usr/bin/env bash
# Writes the lock files anew from the pyprojects and the .in files: versions and hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
extras='--extra s3 --extra cloudwatch --extra otel'
compile() {
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
    --no-emit-package sluice-proto --custom-compile-command 'make lock' "$@"
}
overrides=$(mktemp --suffix=.txt)
trap 'rm -f "$overrides"' EXIT
echo "sluice-proto @ file://$PWD/proto" >"$overrides"
# The server's image and the tests have every extra but flash-attn, which needs CUDA's compiler to be built.
compile --overrides "$overrides" $extras proto/pyproject.toml server/pyproject.toml -o dev/locks/server.txt
# The tests have both halves in one environment: what they share is the same version.
compile -c dev/locks/server.txt operator/pyproject.toml -o dev/locks/operator.txt
compile --overrides "$overrides" $extras -c dev/locks/server.txt -c dev/locks/operator.txt \
  proto/pyproject.toml server/pyproject.toml operator/pyproject.toml dev/locks/dev.in -o dev/locks/dev.txt
compile dev/locks/tools.in -o dev/locks/tools.txt
# The peers of `make bench` have an environment of their own.
compile dev/locks/peers.in -o dev/locks/peers.txt
