#!/usr/bin/env bash
# Writes the lock files anew from the pyprojects and the .in files: versions and hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv/bin/uv}
compile() {
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
    --no-emit-package sluice-proto --custom-compile-command 'make lock' "$@"
}
overrides=$(mktemp --suffix=.txt)
trap 'rm -f "$overrides"' EXIT
echo "sluice-proto @ file://$PWD/proto" >"$overrides"
compile --overrides "$overrides" proto/pyproject.toml server/pyproject.toml -o dev/locks/server.txt
compile operator/pyproject.toml -o dev/locks/operator.txt
compile --overrides "$overrides" -c dev/locks/server.txt -c dev/locks/operator.txt \
  proto/pyproject.toml server/pyproject.toml operator/pyproject.toml dev/locks/dev.in -o dev/locks/dev.txt
compile dev/locks/tools.in -o dev/locks/tools.txt
