"""Prompts of an evaluation, and extraction of programs from answers."""

from __future__ import annotations

import pytest

from codealign.coordinator.evaluation import prompts
from codealign.coordinator.evaluation.problems import CheckTests, Problem
from codealign.coordinator.evaluation.programs import clean

BODY = Problem("humaneval", "HumanEval/0", 'import math\n\n\ndef f(x):\n    """ Halve. """\n', "f", "", CheckTests(""))
PROGRAM = Problem("mbpp", "Mbpp/2", '"""\nWrite f.\nIt halves.\nassert f(2) == 1\n"""\n', "f", "", CheckTests(""))


def test_a_base_model_continues_the_prompt() -> None:
    asked = prompts.ask(BODY, "base")
    assert asked.text == 'import math\n\n\ndef f(x):\n    """ Halve. """\n'
    assert "\ndef " in asked.stop
    assert prompts.answered(BODY, "base", "    return x / 2") == asked.text + "    return x / 2"
    assert "\ndef " not in prompts.ask(PROGRAM, "base").stop, "a whole program is wanted there"
    assert all(len(prompts.ask(each, "base").stop) <= 16 for each in (BODY, PROGRAM))


def test_a_tuned_model_is_given_an_instruction_and_the_fence_of_its_answer() -> None:
    (_, instruction), (role, begun) = prompts.ask(BODY, "tuned").messages
    assert "```python\nimport math\n\n\ndef f(x):" in instruction
    assert (role, begun) == ("assistant", "```python\n")
    (_, instruction), _ = prompts.ask(PROGRAM, "tuned").messages
    assert instruction.startswith("Write f.\nIt halves.\n")
    assert instruction.endswith("```python\nassert f(2) == 1\n```")


@pytest.mark.parametrize(
    "completion",
    [
        "{code}```\nDone.",
        "{code}",
        "```python\n{code}```\n",
        "```\n{code}```\n",
        "~~~py\n{code}~~~\n",
        "```PY\n{code}```",
        "\n```python3\n{code}",
        "Here is it:\n\n```python\n{code}```\n",
        "Here it's:\n\n```\n{code}```\n\nIt halves.\n",
        "```\n\nHere is it:\n\n```python\n{code}```\n",
        "{code}```\n\nUse it:\n\n```python\nprint(f(2))\n```\n",
        "{code}```\n\nOr:\n\n```python\ndef f(x):\n    return 0.5 * x\n```\n",
        "First a helper:\n\n```python\ndef g(x): return x\n```\n\nThen:\n\n```python\n{code}```\n",
        "```bash\npip list\n```\n\n```python\n{code}```\n",
        "1. Halve:\n   ```python\n   def f(x):\n       return x / 2\n   ```\n",
    ],
)
def test_the_block_that_defines_the_function_is_the_answer(completion: str) -> None:
    code = "def f(x):\n    return x / 2\n"
    assert prompts.answered(BODY, "tuned", completion.format(code=code)) == code


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ('def f(x):\n    """Halve.\n\n    ```python\n    f(2)\n    ```\n    """\n    return x / 2\n```\n', None),
        ('"""Halves.\n\n```\nf(2)\n```\n"""\nf = lambda x: x / 2\n```\n', None),
        ("def f(x):\r\n    return x / 2\r\n```\r\nDone.\r\n", "def f(x):\r\n    return x / 2\r\n"),
        ("import math\n\x0c\ndef f(x):\n    return '\u2028'\n```", None),
        ("def f(x):\n    return x /", None),
        ("I cannot do that.", None),
        ("", None),
    ],
)
def test_an_answer_is_kept_as_it_was_written(completion: str, program: str | None) -> None:
    expected = completion.removesuffix("```\n").removesuffix("```") if program is None else program
    assert prompts.answered(BODY, "tuned", completion) == expected


def test_a_conversation_stops_behind_a_closing_fence_and_not_at_an_opening_one() -> None:
    (stop,) = prompts.ask(BODY, "tuned").stop
    assert stop not in "Here is it:\n\n```python\ndef f(x):\n    return x / 2\n```\n"
    assert stop not in "Here is it:\n\n```\ndef f(x):\n    return x / 2\n```\n"
    assert "def f(x):\n    return x / 2\n```\n\nThis halves.".partition(stop)[0].endswith("x / 2")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("def f(x):\n    return x\n\ndef g(", "def f(x):\n    return x\n"),
        ("def f(x):\n    return x\nThis function returns x.", "def f(x):\n    return x\n"),
        ("import re\ndef h(): pass\ndef g(x): return h\ndef f(x): return g(x)\nprint(f(1))\n", None),
        ("K = 2\n@cache\ndef f(x):\n    return K\nassert f(1)\nJ = 3\n", "K = 2\n@cache\ndef f(x):\n    return K\n"),
        ("try:\n    import numpy\nexcept ImportError:\n    numpy = None\ndef f(x): return 1\n", None),
        ("f = lambda x: x; print(f(1))\n", "f = lambda x: x; print(f(1))\n"),
        ("x = 1\nprint(x)\n", "x = 1\nprint(x)\n"),
        ("def f(x:\n", "def f(x:\n"),
        ("def f(x):\n    return '\0'\n", "def f(x):\n    return '\0'\n"),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_what_does_not_belong_to_the_program_is_dropped(text: str, kept: str | None) -> None:
    expected = text.replace("print(f(1))\n", "") if kept is None else kept
    assert clean(text, "f") == expected
