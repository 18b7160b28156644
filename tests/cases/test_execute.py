"""Programs and tests as models write them: each gets the right verdict in real gVisor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.rows import row_drop
from services.sandbox.tests import conftest
from services.sandbox.tests.conftest import name_of, running

pytestmark = pytest.mark.gvisor

_FILES = ("execute.jsonl", "programs.jsonl")
_TEXTS = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in _FILES]
_LINES = [line for text in _TEXTS for line in text.rstrip("\n").split("\n")]
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in map(json.loads, _LINES)}
"""Programs with the right verdict, by name. `options` are further fields of the request."""
_SECONDS = 240.0


def _request(case: dict[str, Any]) -> pb.ExecuteRequest:
    options = dict(case.get("options", {}))
    limits = options.pop("limits", {})
    files = {path: content.encode() for path, content in options.pop("files", {}).items()}
    stdin = options.pop("stdin", "").encode()
    return conftest.request(
        case["code"], case["tests"], request_id=case["name"], files=files, stdin=stdin, **options, **limits
    )


def _asked_for(session: pytest.Session) -> list[str]:
    """Names of the cases in this session: all, or those selected by a pytest option."""
    own = [item for item in session.items if isinstance(item, pytest.Function) and item.function is test_verdict]
    return [str(item.callspec.params["name"]) for item in own]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pb.Result]:
    """Results by name. Several programs are executed at once."""
    requests = [pb.ExecuteStreamRequest(request=_request(CASES[name])) for name in _asked_for(request.session)]
    with running(tmp_path_factory.mktemp("cases"), runners="2", slots="2") as gateway:
        gateway.wait_ready()
        answers = gateway.stub.ExecuteStream(iter(requests), timeout=_SECONDS)
        return {answer.result.request_id: answer.result for answer in answers}


@pytest.mark.parametrize("name", CASES)
def test_verdict(results: dict[str, pb.Result], name: str) -> None:
    assert name_of(results[name]) == CASES[name]["expected"], results[name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["expected"] == "PASSED"])
def test_what_passed_becomes_a_row(name: str) -> None:
    code, tests = CASES[name]["code"], CASES[name]["tests"]
    assert row_drop(f"{code}\n{tests}", code, BenchmarkTexts()) is None


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) == len(_LINES)
