"""The file format of recordings: JSON lines, the model first, then one completion per line.

Each line is written at once and flushed, so a killed writer leaves at most one partial line, which readers ignore and
the next writer removes. Prompts are not stored, since few-shot prompts are long and nearly identical: completions are
found by the prompt's sha256. Its first line and length are for people.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    Sample,
    Sampling,
)

log = get_logger(__name__)

FORMAT = 1
_FIRST_LINE_CHARS = 120

Key = tuple[str, Sampling, Sample]
"""A prompt's sha256, the sampling parameters and the sample. The revision applies to the whole file."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The content of a recording."""

    model: ModelInfo
    completions: dict[Key, Completion]
    whole_bytes: int
    """Length of the file without a partial last line."""

    def of_prompt(self, digest: str) -> list[Key]:
        """Return the keys of one prompt's completions."""
        return [key for key in self.completions if key[0] == digest]


def prompt_digest(prompt: str | tuple[ChatMessage, ...]) -> str:
    """Return the sha256 of a prompt, or of a conversation's JSON."""
    return hashlib.sha256(_text(prompt).encode()).hexdigest()


def first_line(prompt: str | tuple[ChatMessage, ...]) -> str:
    """Return a prompt's first non-blank line, for people."""
    text = prompt if isinstance(prompt, str) else (prompt[-1].content if prompt else "")
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:_FIRST_LINE_CHARS]


def header_line(model: ModelInfo) -> str:
    """Return the first line: the model, with only the folder's name as its source, so that local paths stay private."""
    recorded = replace(model, source=Path(model.source.rstrip("/")).name)
    return json.dumps({"codealign_recording": FORMAT, "model": asdict(recorded)}, ensure_ascii=False) + "\n"


def completion_line(request: GenerationRequest, completion: Completion) -> str:
    """Return one completion's line; the order of fields is fixed."""
    entry = {
        "prompt_sha256": prompt_digest(request.prompt),
        "prompt_first_line": first_line(request.prompt),
        "prompt_chars": len(_text(request.prompt)),
        "sampling": asdict(request.sampling),
        **asdict(completion),
        "seconds": round(completion.seconds, 3),
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def read(path: Path) -> Recording:
    """Read a recording.

    Raises:
        ConfigurationError: The file is missing or damaged; the message has the line number.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        log.warning("recording_torn", path=str(path), dropped_bytes=len(data) - whole)
    lines = data[:whole].split(b"\n")[:-1]
    if not lines:
        raise ConfigurationError(f"recording {path} is empty: the first line must describe the model")
    model = _parsed(path, 1, lines[0], _model)
    completions: dict[Key, Completion] = {}
    for number, line in enumerate(lines[1:], start=2):
        key, completion = _parsed(path, number, line, _entry)
        completions.setdefault(key, completion)
    return Recording(model, completions, whole)


def read_model(path: Path) -> ModelInfo:
    """Read a recording's model from the first line.

    Raises:
        ConfigurationError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            line = stream.readline()
    except OSError as error:
        raise _unreadable(path, error) from error
    model: ModelInfo = _parsed(path, 1, line, _model)
    return model


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"recording {path} cannot be read ({error.strerror}): check the path")


def _text(prompt: str | tuple[ChatMessage, ...]) -> str:
    if isinstance(prompt, str):
        return prompt
    return json.dumps([asdict(message) for message in prompt], ensure_ascii=False)


def _parsed(path: Path, number: int, line: bytes, parse: Any) -> Any:
    try:
        return parse(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"recording {path} is damaged in line {number} ({what}): remove that line, or record again"
        ) from error


def _model(entry: dict[str, Any]) -> ModelInfo:
    if entry["codealign_recording"] != FORMAT:
        raise ValueError(f"format is {entry['codealign_recording']}, but this program reads format {FORMAT}")
    return ModelInfo(**entry["model"])


def _entry(entry: dict[str, Any]) -> tuple[Key, Completion]:
    sampling = Sampling(**{**entry["sampling"], "stop": tuple(entry["sampling"]["stop"])})
    completion = Completion(
        attempt=entry["attempt"],
        seed=entry["seed"],
        text=entry["text"],
        finish_reason=FinishReason(entry["finish_reason"]),
        stop_string=entry["stop_string"],
        prompt_tokens=entry["prompt_tokens"],
        cached_prompt_tokens=entry["cached_prompt_tokens"],
        generated_tokens=entry["generated_tokens"],
        seconds=entry["seconds"],
        detail=entry.get("detail", ""),
    )
    return (entry["prompt_sha256"], sampling, Sample(completion.attempt, completion.seed)), completion
