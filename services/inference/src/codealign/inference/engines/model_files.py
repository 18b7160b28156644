"""What the JSON files of a model's folder say, for engines that do not load the model with Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codealign.common.errors import ConfigurationError


def end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a completion: from generation_config, config or tokenizer, the first that has any."""
    for holder in (configuration(folder, "generation_config.json"), configuration(folder)):
        if (ids := holder.get("eos_token_id")) is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset() if tokenizer.eos_token_id is None else frozenset([tokenizer.eos_token_id])


def configuration(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return a file's contents, with the text model's fields of a multimodal one on top; empty if it is missing.

    Raises:
        ConfigurationError: The file is not a JSON object.
    """
    try:
        read = json.loads((folder / name).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{folder}/{name} cannot be used: {error}") from error
    if not isinstance(read, dict):
        raise ConfigurationError(f"{folder}/{name} cannot be used: it is not a JSON object")
    text = read.get("text_config")
    return {**read, **text} if isinstance(text, dict) else read
