"""What was recorded of a model: how long its completions are, how long they take, and what becomes of them."""

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
"""A line of terms, text, and an answer with code (and tests, where they are asked for)."""

PASSED, FAILED_ASSERTION, RAISED, SYNTAX_ERROR = "passed", "failed-assertion", "raised", "syntax-error"
TIMED_OUT, EXITED_EARLY, NO_ASSERTION = "timed-out", "exited-early", "no-assertion"
CUT_OFF, NO_TESTS, NO_ANSWER_END = "cut-off", "no-tests-section", "no-answer-end"
OUTCOMES = (
    PASSED, FAILED_ASSERTION, RAISED, SYNTAX_ERROR, TIMED_OUT, EXITED_EARLY, NO_ASSERTION,
    CUT_OFF, NO_TESTS, NO_ANSWER_END,
)  # fmt: skip
"""What becomes of an answer: executed, the first seven; never executed, the others."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The completions of one kind. Distributions are quantiles at equal steps, from the least to the greatest."""

    tokens: tuple[float, ...]
    """New tokens of a completion that ended by itself."""
    chars_per_token: float
    seconds_per_token: tuple[float, ...]
    """From a request's arrival, waiting included, over the completion's tokens."""
    cut_off: float
    """The share of lists and prose that reached their limit. (Of answers it is an outcome.)"""


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything."""

    name: str
    revision: str
    """The sha256 of the file."""
    context_length: int
    chars_per_prompt_token: float
    kinds: dict[str, Kind]
    repeats: float
    """The share of tasks whose function bears a name that an earlier task's bore."""
    pass_rates: tuple[float, ...]
    """Of one prompt's answers; quantiles over the prompts."""
    failures: dict[str, float]
    """How often an answer that did not pass had each of the other outcomes."""


def locate(source: str) -> Path:
    """The file of a profile.

    Args:
        source: A profile's name, or a file.

    Raises:
        ConfigurationError: There is none; names those that there are.
    """
    named = FOLDER / f"{source}.json"
    path = named if "/" not in source and named.is_file() else Path(source).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
        raise ConfigurationError(
            f"the engine simulated has no profile {source!r}: give one of {known}, or a file that "
            "`python -m codealign.inference.engines.simulated.record` wrote"
        )
    return path


def load(source: str) -> Profile:
    """Read a profile by its name or file.

    Raises:
        ConfigurationError: It is missing, or is none; the message names what is wrong.
    """
    path = locate(source)
    try:
        data = path.read_bytes()
        given = json.loads(data)
        if not isinstance(given, dict) or given.get("codealign_profile") != FORMAT:
            raise ValueError(f"its format is no {FORMAT}")
        return _profile(given, hashlib.sha256(data).hexdigest())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"profile {path} cannot be used ({what}): record it anew") from error


def _profile(given: dict[str, Any], revision: str) -> Profile:
    failures = {str(name): _positive(f"failures.{name}", value) for name, value in given["failures"].items()}
    for name in failures:
        if name not in OUTCOMES[1:]:
            raise ValueError(f"failures: {name!r} is none of {', '.join(OUTCOMES[1:])}")
    if not sum(failures.values()):
        raise ValueError("failures: none has a share")
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
        raise ValueError(f"{name}: quantiles are numbers that rise, got {list(values)[:5]}")
    return values


def _share(name: str, given: Any) -> float:
    value = _positive(name, given)
    if value > 1:
        raise ValueError(f"{name}: a share is at most 1, got {value}")
    return value


def _positive(name: str, given: Any) -> float:
    value = float(given)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be at least 0, got {value}")
    return value
