"""Create a simulation profile from recordings of real runs.

    python -m codealign.inference.engines.simulated.record RECORDING... --sandbox HOST:PORT --name NAME --output FILE

RECORDING is a file that an engine wrote with `--record`; several must be of the same model. A running sandbox service
(`codealign up`, or `codealign-sandbox`) executes the answers to find their outcomes; programs run nowhere else. Lengths
and times are kept as quantiles and pass rates per prompt; the profile contains no text of the recordings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from codealign.common.clients import connect
from codealign.common.errors import ConfigurationError
from codealign.inference.engines.base import Completion, FinishReason
from codealign.inference.engines.recording_file import FORMAT as RECORDING_FORMAT
from codealign.inference.engines.recording_file import read as read_recording
from codealign.inference.engines.simulated import profile as profiles
from codealign.inference.engines.simulated.profile import ANSWER, CUT_OFF, LIST, NO_ANSWER_END, NO_TESTS, PASSED, PROSE
from codealign.inference.engines.simulated.wanted import is_list

_STEPS = 20
"""The distance between two quantiles is 5% of the completions."""
_SECONDS = 600.0
_BLOCK = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([A-Za-z_]\w*)")
_OUTCOMES = {
    pb.VERDICT_PASSED: PASSED,
    pb.VERDICT_FAILED_ASSERTION: profiles.FAILED_ASSERTION,
    pb.VERDICT_SYNTAX_ERROR: profiles.SYNTAX_ERROR,
    pb.VERDICT_TIMED_OUT: profiles.TIMED_OUT,
    pb.VERDICT_EXITED_EARLY: profiles.EXITED_EARLY,
    pb.VERDICT_NO_TESTS: profiles.NO_ASSERTION,
}
"""Every other verdict counts as an exception: programs that hit other limits are not simulated."""


@dataclass(frozen=True)
class _Recorded:
    """A recorded completion with its prompt and kind."""

    prompt: str
    prompt_chars: int
    kind: str
    completion: Completion


def _kinds(stops: Iterable[tuple[tuple[str, ...], str]]) -> dict[tuple[str, ...], str]:
    """Return the kind of completion for each tuple of stop strings, by majority of the completions' forms."""
    votes: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for stop, text in stops:
        votes[stop][ANSWER if "```" in text else LIST if is_list(text) else PROSE] += 1
    return {stop: counted.most_common(1)[0][0] for stop, counted in votes.items()}


def _read(paths: Sequence[Path]) -> tuple[list[_Recorded], dict[str, Any]]:
    """Read all completions, and a description of the model.

    Raises:
        ConfigurationError: A recording cannot be read, or the recordings are of different models.
    """
    found: list[_Recorded] = []
    models = {}
    for path in paths:
        recording = read_recording(path)
        models[recording.model.revision] = recording.model
        chars = _prompt_chars(path)
        kinds = _kinds((key[1].stop, completion.text) for key, completion in recording.completions.items())
        found += [
            _Recorded(key[0], chars[key[0]], kinds[key[1].stop], completion)
            for key, completion in recording.completions.items()
        ]
    if len(models) > 1:
        raise ConfigurationError(f"the recordings are of {len(models)} models: a profile needs recordings of one model")
    (model,) = models.values()
    about = {
        "name": model.name,
        "revision": model.revision,
        "completions": len(found),
        "recording_format": RECORDING_FORMAT,
    }
    return found, {"recorded_from": about, "context_length": model.context_length}


def _prompt_chars(path: Path) -> dict[str, int]:
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {entry["prompt_sha256"]: int(entry["prompt_chars"]) for entry in entries}


def _program(text: str) -> tuple[str, str] | str:
    """Return code and tests of an answer, or the outcome of an answer without them."""
    answer, ended, rest = text.partition("</answer>")
    if not ended:
        return NO_ANSWER_END
    code = "\n".join(_BLOCK.findall(answer))
    tests = "\n".join(_BLOCK.findall(rest))
    return (code, tests) if code and tests else NO_TESTS


async def _outcomes(recorded: Sequence[_Recorded], address: str) -> list[str]:
    """Return the outcome of each answer.

    Raises:
        ConfigurationError: The sandbox failed.
    """
    async with connect(address) as channel:
        stub = SandboxServiceStub(channel)
        few = asyncio.Semaphore(8)

        async def one(each: _Recorded) -> str:
            if each.completion.finish_reason is FinishReason.LENGTH:
                return CUT_OFF
            program = _program(each.completion.text)
            if isinstance(program, str):
                return program
            request = pb.ExecuteRequest(program=pb.Program(code=program[0], tests=program[1]))
            async with few:
                answer = await stub.Execute(request, timeout=_SECONDS, wait_for_ready=True)
            if answer.result.verdict == pb.VERDICT_INFRASTRUCTURE:
                raise ConfigurationError(f"the sandbox failed: {answer.result.detail}")
            return _OUTCOMES.get(answer.result.verdict, profiles.RAISED)

        return await asyncio.gather(*(one(each) for each in recorded))


def _quantiles(values: Iterable[float], digits: int) -> list[float]:
    """Return quantiles at equal steps, in ascending order.

    Raises:
        ConfigurationError: There are no values.
    """
    found = sorted(values)
    if not found:
        raise ConfigurationError("the recordings lack lists, tasks or answers: a profile needs all three")
    return [round(found[round(step / _STEPS * (len(found) - 1))], digits) for step in range(_STEPS + 1)]


def _kind(recorded: Sequence[_Recorded]) -> dict[str, Any]:
    completions = [each.completion for each in recorded]
    whole = [each for each in completions if each.finish_reason is not FinishReason.LENGTH]
    cut_off = 1 - len(whole) / len(completions) if completions else 0.0
    tokens = sum(each.generated_tokens for each in completions)
    return {
        "completions": len(completions),
        "tokens": _quantiles((each.generated_tokens for each in whole), 0),
        "chars_per_token": round(
            sum(len(each.text) + len(each.stop_string) for each in completions) / max(1, tokens), 3
        ),
        "seconds_per_token": _quantiles((each.seconds / max(1, each.generated_tokens) for each in completions), 4),
        "cut_off": round(cut_off, 4),
    }


def _repeats(tasks: Iterable[_Recorded]) -> float:
    """Return the fraction of tasks whose function has the same name as an earlier task's."""
    names = [found.group(1) for each in tasks if (found := _NAMED.search(each.completion.text))]
    return round(1 - len(set(names)) / len(names), 4) if names else 0.0


async def make(paths: Sequence[Path], name: str, sandbox: str) -> dict[str, Any]:
    """Create a profile.

    Args:
        paths: Recordings of one model.
        name: The profile's name.
        sandbox: Address of a sandbox service, as host:port.

    Raises:
        ConfigurationError: Names what is wrong.
    """
    recorded, about = _read(paths)
    by_kind: defaultdict[str, list[_Recorded]] = defaultdict(list)
    for each in recorded:
        by_kind[each.kind].append(each)
    answers = by_kind[ANSWER]
    outcomes = await _outcomes(answers, sandbox)
    of_prompt: defaultdict[str, list[bool]] = defaultdict(list)
    for each, outcome in zip(answers, outcomes, strict=True):
        of_prompt[each.prompt].append(outcome == PASSED)
    failures = Counter(outcome for outcome in outcomes if outcome != PASSED)
    prompt_tokens = sum(each.completion.prompt_tokens for each in recorded)
    return {
        "codealign_profile": profiles.FORMAT,
        "name": name,
        **about,
        "chars_per_prompt_token": round(sum(each.prompt_chars for each in recorded) / max(1, prompt_tokens), 3),
        "kinds": {kind: _kind(by_kind[kind]) for kind in profiles.KINDS},
        "repeats": _repeats(by_kind[PROSE]),
        "passed": round(outcomes.count(PASSED) / len(outcomes), 4),
        "pass_rates": _quantiles((sum(passed) / len(passed) for passed in of_prompt.values()), 3),
        "failures": {name: round(count / failures.total(), 4) for name, count in failures.most_common()},
    }


def main() -> None:
    """Write a profile to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument(
        "--sandbox", required=True, metavar="HOST:PORT", help="sandbox service that executes the programs"
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--output", required=True, type=Path)
    given = parser.parse_args()
    try:
        made = asyncio.run(make(given.recordings, given.name, given.sandbox))
    except (ConfigurationError, OSError, grpc.aio.AioRpcError) as error:
        sys.exit(f"record: {error.details() if isinstance(error, grpc.aio.AioRpcError) else error}")
    given.output.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
