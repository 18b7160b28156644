"""The selfcodealign pipeline produces the same rows as before pipelines were data.

The digests were computed by the earlier single-method program from the same seeds, completions and verdicts.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator.runs.config import run_records, with_defaults
from fakes.inference import REVISION
from fakes.toys import SEEDS, Bench, number

WORDS = [
    *("alpha", "beta", "gamma", "delta", "list", "sort", "tree", "graph", "string", "parse", "count", "merge", "split"),
    *("join", "index", "queue", "stack", "heap", "sum", "mean"),
]
ROWS = {
    "first-pass": (23, "2a6a738f907565a0a9fecc89961ff969b88ea0347bdee61be9c118c0a6b32592"),
    "random-pass": (21, "5e54fc228123daf08468df1019666a0dc0fbf005d03efc0a0a00006d64ebef5d"),
}
SELECTION = {
    "first-pass": {
        "dedup.code": 23,
        "dedup.instruction": 90,
        "row.placeholder": 5,
        "selection.another-pass-was-chosen": 8,
    },
    "random-pass": {
        "dedup.code": 38,
        "dedup.instruction": 84,
        "row.placeholder": 9,
        "selection.another-pass-was-chosen": 43,
    },
}


def words(count: int, *parts: object) -> list[str]:
    return [WORDS[number(*parts, index) % len(WORDS)] for index in range(count)]


def seeds() -> list[pb.Record]:
    texts = []
    for index in range(60):
        name = "_".join(words(2, "seed", index)) + f"_{index}"
        values = [f"{word}_{index}" for word in words(3, "body", index)]
        docstring = " ".join(words(8, "doc", index))
        texts.append(
            f'def {name}({", ".join(dict.fromkeys(values))}):\n    """{docstring}."""\n'
            f"    value = {' + '.join(values)}\n    return value\n"
        )
    texts += ["def nothing(x):\n    pass\n", "def todo_f(x):\n    # todo\n    return x\n"]
    return [records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=text))) for text in texts]


def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    seed, chance = sample.seed, number(sample.seed, "c") % 20
    end, length = inf.FINISH_REASON_END_TOKEN, inf.FINISH_REASON_LENGTH
    if chance == 0:
        return inf.Completion(finish_reason=end)
    if request.prompt.startswith("# From code to concepts"):
        return stopped(request, ", ".join(dict.fromkeys(words(4, seed))))
    if request.prompt.startswith("# From concepts to tasks"):
        if chance == 1:
            return inf.Completion(text="cut", finish_reason=length)
        return stopped(request, task(seed, number(seed, "k") % 40, too_long=chance == 2))
    if chance == 1:
        return inf.Completion(text="no tests here </answer>", finish_reason=end)
    return stopped(request, response(seed, number(seed, "r") % 30, placeholder=chance == 3))


def task(seed: int, kind: int, *, too_long: bool) -> str:
    name, takes, returns = words(2, "name", kind), words(3, "task", kind), words(12, "ret", kind)
    more = " " + " ".join(words(260, seed)) if too_long else ""
    return (
        f"Write a function named {'_'.join(name)}_{kind} that takes {' and '.join(takes)} and returns "
        f"{' '.join(returns)}.{more}"
    )


def response(seed: int, kind: int, *, placeholder: bool) -> str:
    todo, value = "\n# TODO later" if placeholder else "", words(1, "v", kind)[0]
    name = "_".join(words(2, "f", kind)) + f"_{kind}"
    return (
        f"It {' '.join(words(15, 'ans', seed))}.\n\n```python\ndef {name}(a, b):{todo}\n"
        f"    {value} = a {'+-*'[kind % 3]} b\n    return {value}\n```\n</answer>\n<tests>\n```python\n"
        f"assert {name}(1, {number(seed, 't') % 9}) is not None"
    )


def stopped(request: inf.GenerateRequest, text: str) -> inf.Completion:
    stop = request.sampling.stop[0]
    return inf.Completion(text=text, finish_reason=inf.FINISH_REASON_STOP_STRING, stop_string=stop)


def judges(program: sb.Program) -> sb.Result:
    passes = number(program.code, program.tests) % 3 == 0
    return sb.Result(verdict=sb.VERDICT_PASSED if passes else sb.VERDICT_FAILED_ASSERTION)


@pytest.mark.parametrize(
    ("strategy", "near"),
    [("first-pass", "similarity"), ("random-pass", "similarity"), ("first-pass", "band-collision")],
)
async def test_the_same_seeds_completions_and_verdicts_give_the_same_rows(strategy: str, near: str) -> None:
    run = pb.Run(pipeline="selfcodealign", seeds=pb.SeedSelection(collection=SEEDS), seed=11)
    run.model.model, run.model.revision = "model", REVISION
    run.selection.strategy, run.selection.near_duplicates = strategy, near
    bench = Bench(run_records(with_defaults(run))[1])
    bench.fakes.inference.writes, bench.fakes.sandbox.judges = writes, judges
    bench.fakes.dataset.put(*seeds(), collection=SEEDS)
    await bench.work()
    rows = sorted(
        [
            row.lineage[0].record_id,
            row.instruction,
            row.response,
            row.tests,
            row.category,
            row.difficulty,
            list(row.concepts),
            row.tests_in_instruction,
            row.model_revision,
        ]
        for row in (record.example for record in bench.examples())
    )
    assert (len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()) == ROWS[strategy]
    assert bench.progress["selection"].reasons == SELECTION[strategy]
    assert bench.progress["instructions"].reasons == {"empty": 1, "instruction.too-long": 2}
