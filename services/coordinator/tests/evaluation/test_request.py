"""Evaluation requests, and the identity of their results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import InvalidArgument
from codealign.coordinator.evaluation.problems import Benchmark, CheckTests, Problem
from codealign.coordinator.evaluation.request import checked, configuration, sample_seed
from codealign.coordinator.evaluation.runners import RunnerIdentity

RUNNERS = RunnerIdentity("sha256:1", "3.11.9", "{}")
BENCHMARK = Benchmark("humaneval", (Problem("humaneval", "HumanEval/0", "p", "f", "c", CheckTests("t")),), "file")


def request(**fields: Any) -> pb.EvaluationSettings:
    return pb.EvaluationSettings(**{"benchmarks": ["humaneval"], "prompt_style": "base", **fields})


def test_defaults() -> None:
    asked = checked(request())
    assert (asked.samples, asked.max_tokens, asked.temperature, asked.limit) == (1, 1024, 0, 0)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"benchmarks": []}, {"benchmarks"}),
        ({"benchmarks": ["humaneval", "x", "humaneval"]}, {"benchmarks[1]", "benchmarks[2]"}),
        ({"samples": 2}, {"samples"}),
        ({"samples": -1, "temperature": 1}, {"samples"}),
        ({"samples": 1001, "temperature": 1}, {"samples"}),
        ({"temperature": -0.1}, {"temperature"}),
        ({"temperature": float("nan")}, {"temperature"}),
        ({"max_tokens": -1}, {"max_tokens"}),
        ({"prompt_style": ""}, {"prompt_style"}),
        ({"limit": -1, "max_tokens": 10**6, "prompt_style": "x"}, {"limit", "max_tokens", "prompt_style"}),
    ],
)
def test_every_wrong_field_is_named_at_once(fields: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked(request(**fields))
    assert {field for field, _ in caught.value.violations} == {f"settings.{field}" for field in wrong}


def test_an_unknown_benchmark_is_told_which_there_are() -> None:
    with pytest.raises(InvalidArgument, match=r"unknown benchmark 'x'; must be one of: humaneval, humaneval\+, mbpp"):
        checked(request(benchmarks=["x"]))


def test_the_configuration_names_all_that_decides_a_result_and_nothing_else() -> None:
    def identity(**fields: Any) -> str:
        return configuration(checked(request(**fields)), BENCHMARK, "r", RUNNERS).id

    sampled = {"temperature": 0.5, "samples": 2}
    assert identity() == identity(limit=1) == identity(seed=5), "greedy decoding draws nothing"
    assert identity(**sampled) == identity(temperature=0.5, samples=9)
    different = [identity(), identity(**sampled), identity(seed=1, **sampled), identity(max_tokens=9)]
    different += [identity(prompt_style="tuned"), configuration(checked(request()), BENCHMARK, "other", RUNNERS).id]
    for runners in (
        RunnerIdentity("sha256:2", "3.11.9", "{}"),
        RunnerIdentity("sha256:1", "3.12.1", "{}"),
        RunnerIdentity("sha256:1", "3.11.9", '{"default": {"calls": {"processes": 2}}}'),
    ):
        different.append(configuration(checked(request()), BENCHMARK, "r", runners).id)
    assert len(set(different)) == len(different)
    settings = json.loads(configuration(checked(request()), BENCHMARK, "r", RUNNERS).stage_config.settings_json)
    assert (settings["benchmark"], settings["problems"], settings["model_revision"]) == ("humaneval", 1, "r")


def test_a_samples_seed_follows_from_seed_problem_and_number_alone() -> None:
    asked = checked(request(temperature=1, samples=3, seed=7))
    fewer = checked(request(temperature=0.1, samples=1, seed=7, limit=3))
    assert sample_seed(asked, "HumanEval/0", 1) == sample_seed(fewer, "HumanEval/0", 1)
    seeds = {sample_seed(asked, problem, attempt) for problem in ("HumanEval/0", "HumanEval/1") for attempt in (0, 1)}
    assert len(seeds) == 4
