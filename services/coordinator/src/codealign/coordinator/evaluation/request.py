"""Evaluation requests: validation and conversion from protobuf, and the resulting stage configuration."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.errors import InvalidArgument
from codealign.coordinator.evaluation import benchmarks, judging, prompts
from codealign.coordinator.evaluation.problems import Benchmark
from codealign.coordinator.evaluation.runners import RunnerIdentity

NAME = "evaluation"
"""Name of the StageConfig."""
MAX_SAMPLES = 1000
MAX_TOKENS = 32_768
DEFAULT_MAX_TOKENS = 1024


@dataclass(frozen=True)
class Asked:
    """Evaluation settings with defaults filled in."""

    model: pb.ModelChoice
    benchmarks: tuple[str, ...]
    samples: int
    temperature: float
    max_tokens: int
    style: str
    seed: int
    limit: int


def checked(settings: pb.EvaluationSettings, path: str = "settings", *, style: str = "") -> Asked:
    """Validate settings and fill in the defaults.

    Args:
        settings: Settings from the request.
        path: Path of the settings in the request, for messages.
        style: Prompt style to use if the settings name none. Empty: the settings must name one.

    Raises:
        InvalidArgument: Names every invalid field.
    """
    wrong: list[tuple[str, str]] = []

    def need(ok: bool, field: str, description: str) -> None:
        if not ok:
            wrong.append((f"{path}.{field}", description))

    known = ", ".join(benchmarks.names())
    need(bool(settings.benchmarks), "benchmarks", f"name at least one of: {known}")
    for at, name in enumerate(settings.benchmarks):
        need(name in benchmarks.names(), f"benchmarks[{at}]", f"unknown benchmark {name!r}; must be one of: {known}")
        need(name not in settings.benchmarks[:at], f"benchmarks[{at}]", f"duplicate benchmark {name!r}")
    samples, temperature = settings.samples or 1, settings.temperature
    need(1 <= samples <= MAX_SAMPLES, "samples", f"must be from 1 to {MAX_SAMPLES}")
    need(math.isfinite(temperature) and 0 <= temperature <= 2, "temperature", "must be from 0 (greedy) to 2")
    need(samples <= 1 or temperature > 0, "samples", "must be 1 at temperature 0: greedy samples are identical")
    max_tokens = settings.max_tokens or DEFAULT_MAX_TOKENS
    need(1 <= max_tokens <= MAX_TOKENS, "max_tokens", f"must be from 1 to {MAX_TOKENS}")
    chosen = settings.prompt_style or style
    styles = " or ".join(f'"{each}"' for each in prompts.STYLES)
    need(chosen in prompts.STYLES, "prompt_style", f"must be {styles}, is {chosen!r}")
    need(settings.limit >= 0, "limit", "must not be negative; 0 takes every problem")
    if wrong:
        raise InvalidArgument(violations=wrong)
    return Asked(
        model=settings.model,
        benchmarks=tuple(settings.benchmarks),
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        style=chosen,
        seed=settings.seed,
        limit=settings.limit,
    )


def settings_of(asked: Asked) -> pb.EvaluationSettings:
    """Return the settings for a record, with every default filled in."""
    return pb.EvaluationSettings(
        model=asked.model,
        benchmarks=asked.benchmarks,
        samples=asked.samples,
        temperature=asked.temperature,
        max_tokens=asked.max_tokens,
        prompt_style=asked.style,
        seed=asked.seed,
        limit=asked.limit,
    )


def job_record(asked: Asked) -> pb.Record:
    """Return the EvaluationJob record. Equal settings, with defaults filled in, are the same job."""
    body = pb.EvaluationJob(settings=settings_of(asked))
    return records.complete(pb.Record(kind=pb.KIND_EVALUATION_JOB, evaluation_job=body))


def configuration(asked: Asked, benchmark: Benchmark, revision: str, runners: RunnerIdentity) -> pb.Record:
    """Return the StageConfig for a model and a benchmark, judged by these runners.

    It contains neither the limit nor the number of samples, so that a larger request reuses the results of a smaller
    one.
    """
    settings = {
        "benchmark": benchmark.name,
        "benchmark_sha256": benchmark.sha256,
        "judge": judging.VERSION,
        "max_tokens": asked.max_tokens,
        "model_revision": revision,
        "problems": len(benchmark.problems),
        "prompt_style": asked.style,
        "runners": runners.settings(),
        "seed": asked.seed if asked.temperature > 0 else 0,
        "temperature": asked.temperature,
        "templates_sha256": prompts.templates_sha256(),
    }
    text = json.dumps(settings, sort_keys=True)
    body = pb.StageConfig(kind=pb.KIND_EVALUATION_RESULT, name=NAME, settings_json=text)
    return records.complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))


def sample_seed(asked: Asked, problem_id: str, attempt: int) -> int:
    """Return the seed of a sample."""
    return records.seed_for(asked.seed, NAME, problem_id, attempt)
