from __future__ import annotations

import ast
import random

import pytest

from codealign.coordinator.pipelines.evol_instruct import evolutions
from codealign.coordinator.reading import parsing
from codealign.nano import documents, functions, harder
from codealign.nano.examples import Example, draw_example, holds, write_prompt

DRAWS = 300
CARELESS = functions.CARELESS_SHARE


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    dice = random.Random(1)
    return [draw_example(dice, functions.draw_wrong_share(dice, CARELESS)) for _ in range(DRAWS)]


def test_answers_are_right_in_a_part_only(examples: list[Example]) -> None:
    right = sum(example.is_right for example in examples) / DRAWS
    assert 0.3 < right < 0.6


def test_passing_answers_are_right_far_more_often_than_others(examples: list[Example]) -> None:
    passing = [example.is_right for example in examples if example.passes]
    failing = [example.is_right for example in examples if not example.passes]
    assert sum(passing) / len(passing) > 3 * sum(failing) / len(failing)


def test_seeds_are_right_functions(examples: list[Example]) -> None:
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
        example = draw_example(dice, clean=True)
        assert example.is_right
        assert example.passes


def test_the_pipeline_reads_what_the_documents_show(examples: list[Example]) -> None:
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


def test_nothing_held_out_is_in_a_document(examples: list[Example]) -> None:
    assert not any(example.composition.is_held_out for example in examples)


@pytest.mark.parametrize("form", [form for form, _ in documents.FORMS])
def test_the_same_dice_write_the_same_document(form: object) -> None:
    assert callable(form)
    assert form(random.Random(4), CARELESS) == form(random.Random(4), CARELESS)
    assert form(random.Random(4), CARELESS) != form(random.Random(5), CARELESS)


@pytest.mark.parametrize("method", evolutions.METHODS)
def test_a_harder_task_keeps_the_function_and_changes_the_task(method: str) -> None:
    dice = random.Random(7)
    for _ in range(50):
        pair = harder.draw_harder(dice, method)
        assert f"`{pair.names.function}" in pair.given
        assert f"`{pair.names.function}" in pair.task
        assert pair.task != pair.given
        assert not pair.composition.is_held_out
        shot = pair.few_shot(dice)
        assert (shot.seed, shot.instruction, shot.method) == (pair.given, pair.task, method)
        read = parsing.response(f"{shot.response}\n</answer>\n<tests>\n```python\n{shot.tests}\n```\n", cut_off=False)
        assert isinstance(read, parsing.ParsedResponse)
        assert holds(read.code, read.tests)
        assert parsing.instruction(shot.instruction, cut_off=False) == shot.instruction


def test_a_misleading_hint_is_wrong() -> None:
    dice = random.Random(8)
    wrong = 0
    for _ in range(50):
        pair = harder.draw_harder(dice, harder.MISLEADING)
        code = pair.task.partition("```python\n")[2].removesuffix("```")
        wrong += not holds(code, pair.few_shot(dice).tests)
    assert wrong > 30, "tests need not find every mistake"


def test_the_documents_show_every_method() -> None:
    dice = random.Random(9)
    written = [documents.draw_document(dice, CARELESS) for _ in range(400)]
    for text in evolutions.METHODS.values():
        assert any(text in each for each in written)


def test_a_teacher_reads_correct_answers_only() -> None:
    assert {functions.draw_wrong_share(random.Random(number), 0.0) for number in range(200)} == {0.0}
    careful = [documents.draw_document(random.Random(number), 0.0) for number in range(100)]
    usual = [documents.draw_document(random.Random(number), CARELESS) for number in range(100)]
    assert 20 < sum(one != other for one, other in zip(careful, usual, strict=True)) < 80


def test_a_prompt_of_the_evaluation_is_a_function_without_a_body() -> None:
    dice = random.Random(6)
    composition = functions.draw(dice, held_out=True)
    names = functions.draw_names(dice, composition)
    (function,) = ast.parse(write_prompt(dice, composition, names)).body
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1
    assert ">>>" in (ast.get_docstring(function) or "")
