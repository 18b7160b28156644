"""NanoEval: the evaluation tasks of nano's world, in EvalPlus' format. Every task is a held-out composition."""

from __future__ import annotations

import random
from typing import Any

from codealign.nano import examples, functions

COUNT = 164
"""Same number as in HumanEval."""
BASE_INPUTS, PLUS_INPUTS = 5, 15


def write_tasks(seed: int, count: int = COUNT) -> list[dict[str, Any]]:
    """Return the tasks; no composition occurs twice.

    Args:
        seed: Determines the tasks.
        count: Number of tasks.

    Returns:
        Rows with the fields of EvalPlus' files that an evaluation reads; inputs are lists of arguments.
    """
    dice = random.Random(f"NanoEval {seed}")  # noqa: S311 - not used for secrets
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        composition = functions.draw(dice, held_out=True)
        if composition.key in seen:
            continue
        names = functions.draw_names(dice, composition)
        told = [examples.draw_telling(dice, composition, names) for _ in range(BASE_INPUTS + PLUS_INPUTS)]
        if len({repr(value) for _, value, _ in told}) == 1:
            continue  # A constant function is not a task.
        seen.add(composition.key)
        inputs = [[argument] for argument, _, _ in told]
        body = functions.write_body(dice, composition, names)
        rows.append(
            {
                "task_id": f"NanoEval/{len(rows)}",
                "prompt": examples.write_prompt(dice, composition, names),
                "entry_point": names.function,
                "canonical_solution": functions.indented(body.body) + "\n",
                "base_input": inputs[:BASE_INPUTS],
                "plus_input": inputs[BASE_INPUTS:],
                "atol": 0,
            }
        )
    return rows
