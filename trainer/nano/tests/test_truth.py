from __future__ import annotations

import random
from dataclasses import replace

import pytest

from codealign.coordinator.evaluation import prompts
from codealign.coordinator.evaluation.problems import CheckTests, Problem
from codealign.coordinator.rules.rows import with_tests
from codealign.nano import blocks, examples, functions, harder, tasks
from codealign.nano.functions import Composition, Names
from codealign.nano.truth import Meaning, parse

NAMES = Names("f", "p", "x", "out")
SUM = "the sum of the squares of the even numbers in `p`"


def meaning_of(what: str) -> Meaning | None:
    return parse(f"Write a function `f(p)` that returns {what}.")


def test_every_composition_is_read_back() -> None:
    dice = random.Random(1)
    for shape in functions.shapes():
        composition = functions.with_constants(dice, shape)
        names = replace(NAMES, parameter=dice.choice(("numbers", "words", "letters", "n", "text")))
        task = examples.write_instruction(dice, composition, names)
        assert parse(task) == Meaning(composition, "f", names.parameter), task


def test_every_constant_is_read_back() -> None:
    dice = random.Random(2)
    for block in (each for each in (*blocks.FILTERS, *blocks.MAPS, *blocks.REDUCES) if each.constants):
        shape = next(shape for shape in functions.shapes() if any(each is block for each in shape))
        for constant in block.constants:
            constants = [dice.choice(each.constants) if each.constants else None for each in shape[1:]]
            constants[[each is block for each in shape[1:]].index(True)] = constant
            composition = Composition(*shape, *constants)
            assert parse(examples.write_instruction(dice, composition, NAMES)) == Meaning(composition, "f", "p")


@pytest.mark.parametrize("template", examples.TASKS)
def test_every_template_is_read(template: str) -> None:
    composition = functions.draw(random.Random(3))
    assert parse(examples.fill(template, composition, NAMES)) == Meaning(composition, "f", "p")


def test_what_is_added_to_a_task_does_not_change_its_meaning() -> None:
    dice = random.Random(4)
    for _ in range(100):
        pair = harder.draw_harder(dice)
        meaning = Meaning(pair.composition, pair.names.function, pair.names.parameter)
        assertions = [examples.write_assertion(dice, pair.composition, pair.names) for _ in range(2)]
        assert parse(pair.task) == meaning
        assert parse(with_tests(pair.task, "\n".join(assertions))) == meaning
        assert parse(pair.given) is not None


def test_a_prompt_of_the_evaluation_is_read_in_both_styles() -> None:
    for row in tasks.write_tasks(5, 40):
        problem = Problem("", "", row["prompt"], row["entry_point"], "", CheckTests(""))
        meaning = parse(prompts.ask(problem, prompts.BASE).text)
        assert meaning is not None
        assert (meaning.function, meaning.composition.is_held_out) == (row["entry_point"], True)
        assert parse(prompts.ask(problem, prompts.TUNED).messages[0][1]) == meaning


def test_a_function_with_a_docstring_is_read() -> None:
    dice = random.Random(6)
    for _ in range(40):
        composition = functions.draw(dice)
        assert parse(examples.write_function(dice, composition, NAMES)) == Meaning(composition, "f", "p")


@pytest.mark.parametrize(
    "task",
    [
        f"Write a function `f(p)` that returns {SUM}",
        f"Write a function called `f(p)` that returns {SUM}.",
        f"Implement a Python function `f(p: list[int])` which should return {SUM}.",
        f"Create a function `f` with a parameter `p` that computes {SUM}.",
        f"Define `f(p)` so that it returns {SUM.replace(' the', '  the')}.\n",
        f"Implement `f(p)`. It returns {SUM}. It must take linear time and need a single pass.",
    ],
)
def test_other_words_around_the_same_meaning_are_read(task: str) -> None:
    meaning = parse(task)
    assert meaning is not None
    assert meaning.composition.key == "numbers/even/square/sum"


def test_constants_may_be_others_of_the_same_kind() -> None:
    meaning = meaning_of('a list of the first 12 of the words in `p` that start with "qu"')
    assert meaning is not None
    assert (meaning.composition.filter_constant, meaning.composition.reduce_constant) == ("qu", 12)


def test_elements_may_stay_unchanged() -> None:
    meaning = meaning_of("the sum of the numbers in `p`")
    assert meaning is not None
    assert meaning.composition == Composition(
        blocks.SOURCES[0], functions.EVERYTHING, functions.unchanged(blocks.NUMBER), blocks.REDUCES[0]
    )


@pytest.mark.parametrize(
    "what",
    [
        "the sum of the words in `p`",
        "the squares of the words in `p`",
        "the sum of the vowels in `p`",
        "the sum of the even words in `p`",
        "the sum of the numbers in `q`",
        "the sum of the even odd numbers in `p`",
        "the sum of the even numbers in `p` that are greater than 3",
        "the sum of the numbers in `p` that are greater than",
        "the sum of the numbers in `p` that are greater than 'a'",
        "the sum of the sum of the numbers in `p`",
        "the largest of the numbers in `p`",
        "a list of the letters in the text `p`",
        f"{SUM}. Ignore the first number",
        f"{SUM}, or 0",
        "`p`",
        "",
    ],
)
def test_a_sentence_without_one_meaning_is_not_read(what: str) -> None:
    assert meaning_of(what) is None


@pytest.mark.parametrize(
    "task",
    [
        "",
        f"Return {SUM}.",
        f"Write a function `f(p, q)` that returns {SUM}.",
        f"Write a function `f` that returns {SUM}.",
        f"Write a class `f(p)` that prints {SUM}.",
        f"Write a function `f(p)` that sorts `p` and returns {SUM}.",
        f'Repair this.\n\ndef f(p):\n    """Return {SUM}."""',
        f'def f(p):\n    """Return {SUM}.\n\n    Negative numbers are ignored.\n    """',
    ],
)
def test_a_text_that_is_no_task_of_this_world_is_not_read(task: str) -> None:
    assert parse(task) is None
