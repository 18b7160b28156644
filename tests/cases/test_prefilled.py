"""Chat completions after an opening Python fence: the program is the block that defines the required function."""

from __future__ import annotations

import pytest

from codealign.coordinator.evaluation import prompts
from codealign.coordinator.evaluation.problems import CheckTests, Problem
from codealign.coordinator.evaluation.programs import clean
from tests.cases.files import cases

CASES = cases("prefilled.jsonl")


@pytest.mark.parametrize("name", CASES)
def test_the_program_is_found(name: str) -> None:
    case = CASES[name]
    problem = Problem("mbpp", "Mbpp/1", '"""Double."""', case["entry_point"], "", CheckTests(""))
    program = prompts.answered(problem, prompts.TUNED, case["completion"])
    assert program == case["program"]
    names: dict[str, object] = {}
    exec(clean(program, case["entry_point"]), names)
    function = names[case["entry_point"]]
    assert callable(function)
    assert function(3) == 6
