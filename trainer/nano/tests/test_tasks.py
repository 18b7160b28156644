from __future__ import annotations

import json

from codealign.nano import functions, tasks


def test_every_task_is_solved_by_its_solution_and_by_nothing_constant() -> None:
    for row in tasks.write_tasks(1):
        solution = row["prompt"] + row["canonical_solution"]
        values = [functions.call(solution, row["entry_point"], *given) for given in row["base_input"]]
        assert len(values) == tasks.BASE_INPUTS
        plus = [functions.call(solution, row["entry_point"], *given) for given in row["plus_input"]]
        assert len({repr(value) for value in (*values, *plus)}) > 1, row["prompt"]


def test_tasks_are_many_different_and_the_same_each_time() -> None:
    rows = tasks.write_tasks(1)
    assert len(rows) == tasks.COUNT
    assert len({row["prompt"] for row in rows}) == tasks.COUNT
    assert json.dumps(rows) == json.dumps(tasks.write_tasks(1))
    assert json.dumps(rows) != json.dumps(tasks.write_tasks(2))
