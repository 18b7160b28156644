#!/usr/bin/env bash
# Generate the Python modules of every contract into DIR (default: src beside this script).
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-src}
mkdir -p "$out"
find . -path ./src -prune -o -name '*.proto' -print | sed 's|^\./||' | sort | xargs \
  "${PYTHON:-python3}" -m grpc_tools.protoc -I. \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out"
