"""Everything that Python compiles is parsed byte for byte from ten forms of answers, and executed unchanged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from codealign.coordinator.reading import parsing
from services.sandbox.tests import conftest
from services.sandbox.tests.conftest import name_of, running
from tests.cases.shapes import BOM, SHAPES, ended, generated, of_standard_library
from tests.e2e.recorded import RECORDING

TESTS = 'TEXT = """\n```\n</tests>\n"""\nassert TEXT.count("`") == 3\n'
_EXECUTED = 40


def read(code: str, tests: str, shape: str) -> parsing.ParsedResponse:
    found = parsing.response(SHAPES[shape](ended(code), ended(tests)), cut_off=False)
    assert isinstance(found, parsing.ParsedResponse), (shape, code, found)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_generated_modules_are_read_byte_for_byte(shape: str) -> None:
    for code in generated(300):
        found = read(code, TESTS, shape)
        assert (found.code, found.tests) == (ended(code), TESTS)


def test_the_standard_library_is_read_byte_for_byte() -> None:
    modules = list(of_standard_library(120))
    assert len(modules) >= 120
    for code, shape in itertools.product(modules, SHAPES):
        found = read(code, TESTS, shape)
        assert (found.code, found.tests) == (ended(code), TESTS), shape


def test_recorded_answers_of_a_model_are_read_out_of_every_shape() -> None:
    answers = 0
    for line in RECORDING.read_text(encoding="utf-8").split("\n"):
        text = json.loads(line).get("text", "") if line else ""
        found = parsing.response(text, cut_off=False)
        if not isinstance(found, parsing.ParsedResponse):
            continue
        answers += 1
        for shape in SHAPES:
            again = read(found.code, found.tests, shape)
            assert (again.code, again.tests) == (ended(found.code), ended(found.tests)), shape
    assert answers > 40


def _values(code: str) -> dict[str, object]:
    """Return the module's plain values, by name."""
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(code, "<code>", "exec"), names)
    return {
        name: value
        for name, value in names.items()
        if not name.startswith("__") and isinstance(value, str | bytes | int | list | tuple)
    }


def _checked() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Return modules without a byte-order mark, each with a form and its values."""
    shapes = itertools.cycle(SHAPES)
    modules = (code for code in generated(10 * _EXECUTED, seed=3) if not code.startswith(BOM))
    found = ((code, next(shapes), values) for code in modules if (values := _values(code)))
    return itertools.islice(found, _EXECUTED)


@pytest.mark.gvisor
def test_what_is_executed_is_what_was_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    requests = []
    for number, (code, shape, values) in enumerate(_checked()):
        tests = "".join(f"assert {name} == {value!a}\n" for name, value in values.items())
        found = read(code, tests, shape)
        assert (found.code, found.tests) == (ended(code), tests)
        request = conftest.request(found.code, found.tests, request_id=str(number))
        requests.append(pb.ExecuteStreamRequest(request=request))
    assert len(requests) == _EXECUTED
    with running(tmp_path_factory.mktemp("shapes")) as gateway:
        gateway.wait_ready()
        answers = list(gateway.stub.ExecuteStream(iter(requests), timeout=240))
    assert [(name_of(each.result), each.result.detail) for each in answers] == [("PASSED", "")] * _EXECUTED
