"""Recorded statistics of a model: lengths and durations of completions, and outcomes of answers."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from codealign.common.errors import ConfigurationError

FORMAT = 1
FOLDER: Final = Path(__file__).parent / "profiles"
DEFAULT = "nano"

LIST, PROSE, ANSWER = "list", "prose", "answer"
KINDS = (LIST, PROSE, ANSWER)
"""A line of terms, prose, and an answer with code (and tests if requested)."""

PASSED, FAILED_ASSERTION, RAISED, SYNTAX_ERROR = "passed", "failed-assertion", "raised", "syntax-error"
TIMED_OUT, EXITED_EARLY, NO_ASSERTION = "timed-out", "exited-early", "no-assertion"
CUT_OFF, NO_TESTS, NO_ANSWER_END = "cut-off", "no-tests-section", "no-answer-end"
OUTCOMES = (
    PASSED, FAILED_ASSERTION, RAISED, SYNTAX_ERROR, TIMED_OUT, EXITED_EARLY, NO_ASSERTION,
    CUT_OFF, NO_TESTS, NO_ANSWER_END,
)  # fmt: skip
"""Outcomes of an answer: the first seven result from execution, the others mean that it is not executed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Statistics of one kind of completion. Distributions are quantiles at equal steps, in ascending order."""

    tokens: tuple[float, ...]
    """New tokens of completions that ended by themselves."""
    chars_per_token: float
    seconds_per_token: tuple[float, ...]
    """Seconds from a request's arrival, including waiting, divided by the completion's tokens."""
    cut_off: float
    """Fraction of lists and prose that reached their length limit. (For answers, this is an outcome.)"""


@dataclass(frozen=True, slots=True)
class Profile:
    """A model's recorded statistics."""

    name: str
    revision: str
    """The sha256 of the profile's file."""
    context_length: int
    chars_per_prompt_token: float
    kinds: dict[str, Kind]
    repeats: float
    """Fraction of tasks whose function has the same name as an earlier task's."""
    pass_rates: tuple[float, ...]
    """Pass rates of the answers to one prompt: quantiles over the prompts."""
    failures: dict[str, float]
    """Relative frequencies of the other outcomes among answers that did not pass."""


def locate(source: str) -> Path:
    """Return a profile's file.

    Args:
        source: A profile's name or file.

    Raises:
        ConfigurationError: The profile does not exist; the message lists the existing ones.
    """
    named = FOLDER / f"{source}.json"
    path = named if "/" not in source and named.is_file() else Path(source).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
        raise ConfigurationError(
            f"engine simulated has no profile {source!r}: give one of {known}, or a file written by "
            "`python -m codealign.inference.engines.simulated.record`"
        )
    return path


def load(source: str) -> Profile:
    """Read a profile by its name or file.

    Raises:
        ConfigurationError: The profile is missing or invalid; the message names the fault.
    """
    path = locate(source)
    try:
        data = path.read_bytes()
        given = json.loads(data)
        if not isinstance(given, dict) or given.get("codealign_profile") != FORMAT:
            raise ValueError(f"codealign_profile must be {FORMAT}")
        return _profile(given, hashlib.sha256(data).hexdigest())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"missing field {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"profile {path} cannot be used ({what}): record it again") from error


def _profile(given: dict[str, Any], revision: str) -> Profile:
    failures = {str(name): _positive(f"failures.{name}", value) for name, value in given["failures"].items()}
    for name in failures:
        if name not in OUTCOMES[1:]:
            raise ValueError(f"failures: {name!r} must be one of {', '.join(OUTCOMES[1:])}")
    if not sum(failures.values()):
        raise ValueError("failures: all shares are 0")
    return Profile(
        name=str(given["name"]),
        revision=revision,
        context_length=int(_positive("context_length", given["context_length"])),
        chars_per_prompt_token=_positive("chars_per_prompt_token", given["chars_per_prompt_token"]) or 1.0,
        kinds={kind: _kind(kind, given["kinds"][kind]) for kind in KINDS},
        repeats=_share("repeats", given["repeats"]),
        pass_rates=tuple(_share("pass_rates", value) for value in _quantiles("pass_rates", given["pass_rates"])),
        failures=failures,
    )


def _kind(name: str, given: dict[str, Any]) -> Kind:
    return Kind(
        tokens=_quantiles(f"{name}.tokens", given["tokens"]),
        chars_per_token=_positive(f"{name}.chars_per_token", given["chars_per_token"]) or 1.0,
        seconds_per_token=_quantiles(f"{name}.seconds_per_token", given["seconds_per_token"]),
        cut_off=_share(f"{name}.cut_off", given["cut_off"]),
    )


def _quantiles(name: str, given: Any) -> tuple[float, ...]:
    values = tuple(_positive(name, value) for value in given)
    if not values or list(values) != sorted(values):
        raise ValueError(f"{name}: quantiles must be numbers in ascending order, got {list(values)[:5]}")
    return values


def _share(name: str, given: Any) -> float:
    value = _positive(name, given)
    if value > 1:
        raise ValueError(f"{name}: must be at most 1, got {value}")
    return value


def _positive(name: str, given: Any) -> float:
    value = float(given)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be at least 0, got {value}")
    return value
