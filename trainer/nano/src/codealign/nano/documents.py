"""Nano's training documents: plain code, and every form of the pipelines' prompts and their answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from codealign.coordinator.evaluation import prompts as evaluation
from codealign.coordinator.evaluation.problems import CheckTests, Problem
from codealign.coordinator.pipelines.evol_instruct import evolutions
from codealign.coordinator.pipelines.few_shots import FewShot
from codealign.coordinator.pipelines.oss_instruct import pairs
from codealign.coordinator.pipelines.random_snippets import concepts as snippet_concepts
from codealign.coordinator.pipelines.seed_to_instruction import instructions as seed_instructions
from codealign.coordinator.pipelines.selfcodealign import concepts, instructions, responses
from codealign.coordinator.rules.rows import with_tests
from codealign.nano import functions, harder
from codealign.nano.examples import (
    Example,
    draw_example,
    signature,
    write_assertion,
    write_function,
    write_instruction,
    write_prompt,
    write_reason,
)
from codealign.trainer.sft.template import INSTRUCTION_HEADER, RESPONSE_HEADER, SYSTEM_SENTENCE

UNFINISHED_SHARE = 0.03
"""Fraction of answers that end abruptly."""
EVOLVED_SHARE = 0.15
"""Fraction of the tasks in response prompts that contain what a method of Evol-Instruct adds."""


def _module(dice: random.Random, careless_share: float) -> str:
    """Return a file with a few functions by one author."""
    written = []
    wrong_share = functions.draw_wrong_share(dice, careless_share)
    for _ in range(dice.choice((2, 3, 4, 5))):
        composition = functions.draw(dice)
        names = functions.draw_names(dice, composition)
        written.append(write_function(dice, composition, names, wrong_share))
    return "\n\n\n".join(written) + "\n"


def _documented(dice: random.Random, careless_share: float) -> str:
    """Return a function whose docstring has examples, as in the evaluation's prompts."""
    composition = functions.draw(dice)
    names = functions.draw_names(dice, composition)
    prompt = write_prompt(dice, composition, names)
    body = functions.write_body(dice, composition, names, functions.draw_wrong_share(dice, careless_share))
    return f"{prompt}{functions.indented(body.body)}\n"


def _shots(dice: random.Random) -> list[FewShot]:
    return [draw_example(dice).few_shot for _ in range(dice.choice((3, 4, 5, 6)))]


def _concepts(dice: random.Random, careless_share: float) -> str:
    return concepts.prefix(_shots(dice))


def _snippet_concepts(dice: random.Random, careless_share: float) -> str:
    return snippet_concepts.prefix(_shots(dice))


def _instructions(dice: random.Random, careless_share: float) -> str:
    return instructions.prefix(_shots(dice))


def _instructions_from_seeds(dice: random.Random, careless_share: float) -> str:
    return seed_instructions.prefix(_shots(dice))


def _evolutions(dice: random.Random, careless_share: float) -> str:
    return evolutions.prefix([harder.draw_harder(dice).few_shot(dice) for _ in range(dice.choice((3, 4, 5, 6)))])


def _pairs(dice: random.Random, careless_share: float) -> str:
    shots = [example.few_shot for example in _answered(dice, careless_share)]
    return _perhaps_unfinished(dice, pairs.prefix(shots))


def _responses(dice: random.Random, careless_share: float) -> str:
    shots = [_perhaps_evolved(dice, example) for example in _answered(dice, careless_share)]
    return _perhaps_unfinished(dice, responses.prefix(shots))


def _answered(dice: random.Random, careless_share: float) -> list[Example]:
    """Return answered tasks. The first is a prompt's own example and correct, regardless of the author's care."""
    wrong_share = functions.draw_wrong_share(dice, careless_share)
    others = [draw_example(dice, wrong_share) for _ in range(dice.choice((1, 2, 3)))]
    return [draw_example(dice, clean=True), *others]


def _perhaps_evolved(dice: random.Random, example: Example) -> FewShot:
    if dice.random() >= EVOLVED_SHARE:
        return example.few_shot
    method = dice.choice((harder.MISLEADING, harder.COMPLEXITY))
    task = harder.complicate(dice, example.instruction, example.composition, example.names, method)
    return replace(example.few_shot, instruction=task)


def _perhaps_unfinished(dice: random.Random, text: str) -> str:
    if dice.random() < UNFINISHED_SHARE:
        return text[: dice.randrange(len(text) * 3 // 4, len(text))]
    return text


def _conversation(dice: random.Random, careless_share: float) -> str:
    """Return an instruction and its answer in the trainer's chat template, as tuned models are prompted."""
    composition = functions.draw(dice)
    names = functions.draw_names(dice, composition)
    body = functions.write_body(dice, composition, names, functions.draw_wrong_share(dice, careless_share))
    code = f"{signature(composition, names, annotated=dice.random() < 0.5)}\n{functions.indented(body.body)}"
    answer = f"```python\n{code}\n```"
    if dice.random() < 0.5:
        prompt = write_prompt(dice, composition, names)
        problem = Problem("", "", prompt, names.function, code, CheckTests(""))
        (_, instruction), _ = evaluation.ask(problem, evaluation.TUNED).messages
    else:
        instruction = write_instruction(dice, composition, names)
        answer = f"{write_reason(dice, composition)}\n\n{answer}"
        if dice.random() < 0.5:
            tests = [write_assertion(dice, composition, names) for _ in range(2)]
            instruction = with_tests(instruction, "\n".join(tests))
    return f"{SYSTEM_SENTENCE}\n\n{INSTRUCTION_HEADER}\n{instruction}\n\n{RESPONSE_HEADER}\n{answer}"


FORMS: tuple[tuple[Callable[[random.Random, float], str], int], ...] = (
    (_module, 3),
    (_documented, 2),
    (_concepts, 2),
    (_snippet_concepts, 1),
    (_instructions, 2),
    (_instructions_from_seeds, 2),
    (_evolutions, 2),
    (_responses, 8),
    (_pairs, 2),
    (_conversation, 4),
)
"""Each form of document with its weight."""


def draw_document(dice: random.Random, careless_share: float) -> str:
    """Draw one document of the corpus.

    Args:
        dice: Random generator.
        careless_share: Fraction of careless authors; the others write correct code.
    """
    (form,) = dice.choices([form for form, _ in FORMS], [weight for _, weight in FORMS])
    return form(dice, careless_share)


def draw_documents(seed: int, careless_share: float, numbers: Sequence[int]) -> list[str]:
    """Return the documents with these numbers.

    Each depends only on the seed, the share of careless authors and its own number.
    """
    return [
        draw_document(random.Random(f"nano {seed} {number}"), careless_share)  # noqa: S311
        for number in numbers
    ]
