"""Reads the contents of a safetensors file from its header."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return each tensor's shape by name. The header is an 8-byte length, then JSON with shapes and data offsets.

    Raises:
        ValueError: The file is damaged; the message names it and says how, and what to do.
        OSError: It cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError(f"its header claims {length} bytes, but the file has {size}")
            header = json.loads(stream.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            if end != size:
                raise ValueError(f"it has {size} bytes, but its header describes {end}")
            return {name: tuple(entry["shape"]) for name, entry in entries.items()}
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged ({error}): download it again") from error
