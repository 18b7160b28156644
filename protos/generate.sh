#!/usr/bin/env bash
# Generate the Python modules of every contract into DIR (default: src beside this script).
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-src}
python=$(command -v "${PYTHON:-python3}")
mkdir -p "$out"
# protoc looks for its plugins on PATH; they were installed beside the interpreter.
PATH="$(cd "$(dirname "$python")" && pwd):$PATH"
find . -path ./src -prune -o -name '*.proto' -print | sed 's|^\./||' | sort | xargs \
  "$python" -m grpc_tools.protoc -I. \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out"
