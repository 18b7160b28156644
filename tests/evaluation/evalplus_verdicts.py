"""EvalPlus' verdicts and inputs. Runs as a program with EvalPlus on its path.

Reads a JSON request from standard input: {"files": {dataset: path}, "solutions": [[dataset, task id, program]]} and
prints {"verdicts": ["pass pass", ...], "inputs": {task id: repr of all inputs}}.
"""

from __future__ import annotations

import gzip
import json
import sys
import types
from concurrent.futures import ProcessPoolExecutor
from typing import Any

# Needed only by EvalPlus' downloads, which are not used here.
for unused, name in (("wget", ""), ("tempdir", ""), ("appdirs", "user_cache_dir")):
    module = types.ModuleType(unused)
    if name:
        setattr(module, name, lambda _: ".")
    sys.modules[unused] = module

from evalplus.data.mbpp import mbpp_deserialize_inputs  # type: ignore[import-not-found]  # noqa: E402
from evalplus.eval import untrusted_check  # type: ignore[import-not-found]  # noqa: E402
from evalplus.eval._special_oracle import (  # type: ignore[import-not-found]  # noqa: E402
    MBPP_OUTPUT_NOT_NONE_TASKS,
)
from evalplus.gen.util import trusted_exec  # type: ignore[import-not-found]  # noqa: E402

PARTS = ("base", "plus")


def read(dataset: str, path: str) -> dict[str, dict[str, Any]]:
    found = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if dataset == "mbpp":
                for part in PARTS:
                    row[f"{part}_input"] = mbpp_deserialize_inputs(row["task_id"], row[f"{part}_input"])
            found[row["task_id"]] = row
    return found


def judge(dataset: str, row: dict[str, Any], programs: list[str]) -> list[str]:
    """Return each program's verdicts on the base and plus inputs."""
    expected = {}
    for part in PARTS:
        expected[part] = trusted_exec(
            row["prompt"] + row["canonical_solution"],
            row[f"{part}_input"],
            row["entry_point"],
            record_time=True,
            output_not_none=row["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS,
        )
    return [" ".join(_verdict(dataset, row, program, part, *expected[part]) for part in PARTS) for program in programs]


def _verdict(
    dataset: str, row: dict[str, Any], program: str, part: str, expected: list[Any], seconds: list[float]
) -> str:
    verdict, _ = untrusted_check(
        dataset,
        program,
        row[f"{part}_input"],
        row["entry_point"],
        expected=expected,
        atol=row["atol"],
        ref_time=seconds,
        fast_check=True,
    )
    return str(verdict)


def main() -> None:
    request = json.load(sys.stdin)
    rows = {dataset: read(dataset, path) for dataset, path in request["files"].items()}
    by_problem: dict[tuple[str, str], list[int]] = {}
    for number, (dataset, task, _) in enumerate(request["solutions"]):
        by_problem.setdefault((dataset, task), []).append(number)
    verdicts = [""] * len(request["solutions"])
    with ProcessPoolExecutor(2) as pool:
        jobs = {
            key: pool.submit(judge, key[0], rows[key[0]][key[1]], [request["solutions"][at][2] for at in numbers])
            for key, numbers in by_problem.items()
        }
        for key, numbers in by_problem.items():
            for at, verdict in zip(numbers, jobs[key].result(), strict=True):
                verdicts[at] = verdict
    inputs = {
        task: repr([[tuple(given) for given in row[f"{part}_input"]] for part in PARTS])
        for dataset in request.get("inputs", [])
        for task, row in rows[dataset].items()
    }
    json.dump({"verdicts": verdicts, "inputs": inputs}, sys.stdout)


if __name__ == "__main__":
    main()
