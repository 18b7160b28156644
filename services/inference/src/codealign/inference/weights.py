"""Parameter counts from safetensors headers, and whether a model fits into memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.common.safetensors_header import tensor_shapes

# Memory besides the weights: activations of a prefill chunk, the packed copy of the current layer, Python and PyTorch.
_OVERHEAD_BYTES = 600 * 2**20


class DoesNotFit(ConfigurationError):
    """The model may be valid, but this machine does not have enough free memory or disk for it."""


def parameter_count(folder: Path) -> int:
    """Return the number of parameters in the folder's safetensors files.

    Raises:
        ConfigurationError: No such file exists, or one is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({others[0]} is a pickle file, which is not supported: convert it to safetensors)" if others else ""
        raise ConfigurationError(f"{folder} contains no *.safetensors file{hint}")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            wanted = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"{index} is damaged ({error}): download it again") from error
        if missing := sorted(wanted - {file.name for file in files}):
            raise ConfigurationError(
                f"{folder} lacks {', '.join(missing)}, listed in {index.name}: download the missing files"
            )
    return sum(_parameters(file) for file in files)


def require_memory(
    source: str, parameters: int, bytes_each: int, tied_bytes: int, cache_bytes: int, available: int | None
) -> None:
    """Refuse a model that does not fit into memory.

    Args:
        source: The model, for the message.
        parameters: Number of parameters.
        bytes_each: Bytes per parameter in the loaded dtype.
        tied_bytes: Bytes of a packed copy of a tied output projection.
        cache_bytes: Bytes for keys and values.
        available: Free bytes on the device; None if unknown.

    Raises:
        DoesNotFit: The model needs more; the message has the numbers.
    """
    weights = parameters * bytes_each + tied_bytes
    need = weights + cache_bytes + _OVERHEAD_BYTES
    if available is not None and need > available:
        raise DoesNotFit(
            f"{source} needs about {need / 1e9:.1f} GB ({weights / 1e9:.1f} GB of weights at {bytes_each} bytes each, "
            f"{cache_bytes / 1e9:.1f} GB for keys and values) but only {available / 1e9:.1f} GB are free: "
            "use a smaller model or dtype, unload another model, or lower CODEALIGN_INFERENCE_KV_CACHE_BYTES and "
            "CODEALIGN_INFERENCE_PREFIX_CACHE_BYTES"
        )


def _parameters(file: Path) -> int:
    try:
        return sum(math.prod(shape) for shape in tensor_shapes(file).values())
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
