#!/usr/bin/env bash
# Download a pinned gVisor release (runsc and containerd's shim) into FOLDER, and verify its checksums.
#
#     .github/gvisor.sh FOLDER
set -euo pipefail
release=20260601.0
mkdir -p "$1"
cd "$1"
for file in runsc containerd-shim-runsc-v1; do
    for part in "$file" "$file.sha512"; do
        curl --fail --silent --show-error --location --retry 3 --output "$part" \
            "https://storage.googleapis.com/gvisor/releases/release/$release/$(uname -m)/$part"
    done
    sha512sum --check --quiet "$file.sha512"
    chmod 755 "$file"
done
