from __future__ import annotations

import ast
import random

import pytest

from codealign.coordinator.reading import parsing
from codealign.nano import documents, functions

DRAWS = 300


@pytest.fixture(scope="module")
def examples() -> list[documents.Example]:
    dice = random.Random(1)
    return [documents.draw_example(dice, functions.draw_wrong_share(dice)) for _ in range(DRAWS)]


def test_answers_are_right_in_a_part_only(examples: list[documents.Example]) -> None:
    right = sum(example.is_right for example in examples) / DRAWS
    assert 0.3 < right < 0.6


def test_passing_answers_are_right_far_more_often_than_others(examples: list[documents.Example]) -> None:
    passing = [example.is_right for example in examples if example.passes]
    failing = [example.is_right for example in examples if not example.passes]
    assert sum(passing) / len(passing) > 3 * sum(failing) / len(failing)


def test_seeds_are_right_functions(examples: list[documents.Example]) -> None:
    dice = random.Random(2)
    for example in examples[:100]:
        (function,) = ast.parse(example.seed).body
        assert isinstance(function, ast.FunctionDef)
        assert ast.get_docstring(function)
        argument = functions.draw_argument(dice, example.composition)
        value = functions.call(example.seed, example.names.function, argument)
        assert value == functions.evaluate(example.composition, argument)


def test_clean_examples_hold() -> None:
    dice = random.Random(3)
    for _ in range(50):
        example = documents.draw_example(dice, clean=True)
        assert example.is_right
        assert example.passes


def test_the_pipeline_reads_what_the_documents_show(examples: list[documents.Example]) -> None:
    for example in examples:
        shot = example.few_shot
        assert parsing.concepts(", ".join(shot.concepts), cut_off=False) == list(shot.concepts)
        assert parsing.instruction(shot.instruction, cut_off=False) == shot.instruction
        text = f"{shot.response}\n</answer>\n<tests>\n```python\n{shot.tests}\n```\n"
        read = parsing.response(text, cut_off=False)
        if shot.tests:
            assert isinstance(read, parsing.ParsedResponse)
            assert read.tests == shot.tests + "\n"
        else:
            assert isinstance(read, parsing.Rejected)


def test_nothing_held_out_is_in_a_document(examples: list[documents.Example]) -> None:
    assert not any(example.composition.is_held_out for example in examples)


@pytest.mark.parametrize("form", [form for form, _ in documents.FORMS])
def test_the_same_dice_write_the_same_document(form: object) -> None:
    assert callable(form)
    assert form(random.Random(4)) == form(random.Random(4))
    assert form(random.Random(4)) != form(random.Random(5))


def test_a_prompt_of_the_evaluation_is_a_function_without_a_body() -> None:
    dice = random.Random(6)
    composition = functions.draw(dice, held_out=True)
    names = functions.draw_names(dice, composition)
    (function,) = ast.parse(documents.write_prompt(dice, composition, names)).body
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1
    assert ">>>" in (ast.get_docstring(function) or "")
