"""What the safetensors files of a folder hold, read from their headers alone, and whether it fits into memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.common.safetensors_header import tensor_shapes

# Room beside the weights: activations of a prefill chunk, the packed copy of the layer in work, Python and PyTorch.
_OVERHEAD_BYTES = 600 * 2**20


class DoesNotFit(ConfigurationError):
    """The model may be right; this machine has too little room for it now."""


def parameter_count(folder: Path) -> int:
    """The number of parameters in the folder's safetensors files.

    Raises:
        ConfigurationError: there is no such file, or one is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({others[0]} is a pickle, which is not loaded: convert it to safetensors)" if others else ""
        raise ConfigurationError(f"{folder} holds no *.safetensors file{hint}")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            wanted = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"{index} is damaged ({error}): fetch it again") from error
        if missing := sorted(wanted - {file.name for file in files}):
            raise ConfigurationError(f"{folder} lacks {', '.join(missing)}, named in {index.name}: fetch them")
    return sum(_parameters(file) for file in files)


def require_memory(
    source: str, parameters: int, bytes_each: int, tied_bytes: int, cache_bytes: int, available: int | None
) -> None:
    """Refuse a model that does not fit.

    Args:
        source: The model, for the message.
        parameters: Their number.
        bytes_each: The size of one in the dtype that is loaded.
        tied_bytes: What a packed copy of a tied output projection takes.
        cache_bytes: What keys and values may take.
        available: Bytes that are free where it goes; None is unknown.

    Raises:
        DoesNotFit: with the numbers.
    """
    weights = parameters * bytes_each + tied_bytes
    need = weights + cache_bytes + _OVERHEAD_BYTES
    if available is not None and need > available:
        raise DoesNotFit(
            f"{source} needs about {need / 1e9:.1f} GB ({weights / 1e9:.1f} GB of weights at {bytes_each} bytes each, "
            f"{cache_bytes / 1e9:.1f} GB for keys and values) and {available / 1e9:.1f} GB are free: "
            "use a smaller model or dtype, unload another model, or lower CODEALIGN_INFERENCE_KV_CACHE_BYTES and "
            "CODEALIGN_INFERENCE_PREFIX_CACHE_BYTES"
        )


def _parameters(file: Path) -> int:
    try:
        return sum(math.prod(shape) for shape in tensor_shapes(file).values())
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
