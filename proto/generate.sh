#!/usr/bin/env bash
# Generates the Python messages, stubs and types beside the .proto files. The result is committed.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-../.venv/bin/python}
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I . \
  --python_out=. --pyi_out=. --grpc_python_out=. \
  sluice/v1/embeddings.proto gpu_inference/inference.proto
