"""Reports as a coordinator would send them: a small real run, a large one, an empty one, and two malicious ones."""

from __future__ import annotations

import json
import math

import pytest

from cli.tests.report import compared
from cli.tests.report.compared import add_agreement
from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.api.training.v1 import training_pb2 as training
from codealign.common.records import complete

MODEL, REVISION = "qwen2.5-coder-1.5b", "663d13e39eb5293c39672c9460f045b9a6a7bd1d697bb2da7cb4152bb49f9b60"
TUNED, TUNED_REVISION = (
    "qwen2.5-coder-1.5b-4be07f21",
    "9e41c07a5b3d2f186c70d9415ae2b83c4f5d6071829304a5b6c7d8e9f0a1b2c3",
)
VERSION = "v-39fbde69a5cbe471"

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "</style><script>alert(4)</script>",
    "</title></pre></code><iframe src=//evil.example>",
    "javascript:alert(5)",
    "{{ 7 * 7 }}{% raw %}",
    "url(https://evil.example/x)",
    "a\x1b[31mred\x00\u202egnp.exe\u200b\r",
    "]]><svg onload=alert(6)>",
    "&lt;b&gt; &amp; &#60;",
)
"""Texts that must not be interpreted as markup."""


def stage(name: str, items: int, kept: int, reasons: dict[str, int] | None = None, **took: float) -> api.StageReport:
    report = api.StageReport(stage=name, items=items, kept=kept, reasons=reasons or {})
    for field, value in took.items():
        setattr(report, field, value)
    return report


def generation(
    stage: str, tokens: int, shots: int, attempts: int, rounds: int, temperature: float, groups: int
) -> pb.StageSettings:
    return pb.StageSettings(
        stage=stage,
        temperature=temperature,
        top_p=1.0,
        max_tokens=tokens,
        few_shots=shots,
        prefix_groups=groups,
        attempts=attempts,
        round_size=rounds,
        version=1,
    )


def config(name: str, collection: str, limit: int, *, small: bool) -> pb.Run:
    groups = 1 if small else 32
    run = pb.Run(
        name=name,
        pipeline="selfcodealign",
        seeds=pb.SeedSelection(collection=collection, limit=limit),
        model=pb.ModelChoice(model=MODEL, revision=REVISION),
        stages=[
            generation("concepts", 128, 8, 1, 1, 0.7, groups),
            generation("instructions", 256, 8, 1, 1, 0.7, groups),
            generation("responses", 640 if small else 1024, 3 if small else 1, 4 if small else 10, 2, 0.4, groups),
        ],
        execution=pb.ExecutionSettings(profile="default", runs=1, image_digest="sha256:ab", python_version="3.11.7"),
        selection=pb.SelectionSettings(
            instruction_words=200,
            near_duplicate_threshold=0.7,
            tests_in_instruction=0.5,
            forbidden_texts_sha256="5e" * 32,
            strategy="first-pass",
        ),
        few_shot_set="selfcodealign",
    )
    run.stages[1].properties.extend(
        [
            pb.PropertyDraw(name="category", values=["function", "function", "class", "program"]),
            pb.PropertyDraw(name="difficulty", values=["easy"] if small else ["easy", "medium", "hard"]),
        ]
    )
    return run


def evaluation(
    benchmark: str, *, tuned: bool, passed: int, problems: int, interval: tuple[float, float], undecided: int = 0
) -> api.Evaluation:
    name = "tuned" if tuned else "base"
    found = api.Evaluation(
        id=f"{name}-{benchmark}",
        benchmark=benchmark,
        model=TUNED if tuned else MODEL,
        model_revision=TUNED_REVISION if tuned else REVISION,
        prompt_style=name,
        samples=1,
        max_tokens=1024,
        problems_total=problems,
        problems_done=problems,
        pass_at_k={1: passed / problems},
        verdicts={"PASSED": passed, "FAILED_ASSERTION": problems - passed - 9, "RAISED": 9},
        undecided=undecided,
    )
    found.intervals[1].CopyFrom(api.Interval(low=interval[0], high=interval[1]))
    return found


def comparison(
    benchmark: str, problems: int, better: tuple[int, int], interval: tuple[float, float], p_value: float
) -> api.Comparison:
    """Return a comparison; `better` counts the problems on which the base and the tuned model are better."""
    return api.Comparison(
        benchmark=benchmark,
        base=f"base-{benchmark}",
        tuned=f"tuned-{benchmark}",
        problems=problems,
        difference=(better[1] - better[0]) / problems,
        interval=api.Interval(low=interval[0], high=interval[1]),
        base_better=better[0],
        tuned_better=better[1],
        p_value=p_value,
        test="exact McNemar",
    )


def checkpoint(
    steps: int, points: int, rows: int, truncated: int, tokens: int, seconds: float, setup: str
) -> pb.Record:
    losses = []
    for index in range(points):
        step = 1 + round(index * (steps - 1) / max(1, points - 1))
        share = step / steps
        wiggle = 0.03 * math.sin(index * 2.3) + 0.02 * math.sin(index * 7.1)
        rate = 1e-5 * (share / 0.05 if share < 0.05 else (1 - share) / 0.95)
        losses.append(
            training.LossPoint(step=step, loss=0.52 + 0.31 * math.exp(-3.5 * share) + wiggle, learning_rate=rate)
        )
    return complete(
        pb.Record(
            kind=pb.KIND_CHECKPOINT,
            provenance=pb.Provenance(seconds=seconds),
            checkpoint=pb.Checkpoint(
                artifact_url=f"file:///home/ada/.codealign/data/checkpoints/{TUNED_REVISION[:12]}",
                revision=TUNED_REVISION,
                base_model=MODEL,
                base_revision=REVISION,
                dataset_version=VERSION,
                steps=steps,
                final_loss=losses[-1].loss,
                settings_json=json.dumps({"learning_rate": 1e-5, "optimizer": "adafactor", "lora": {"rank": 16}}),
                rows=rows,
                truncated_rows=truncated,
                trained_tokens=tokens,
                losses=losses,
                setup=setup,
            ),
        )
    )


SEED_CODE = '''def compare_digest_lengths(left: bytes, right: bytes) -> int:
    """Compare two digests by length.

    Return -1, 0 or 1 as the first is shorter than, as long as, or longer than the second.
    """
    # bool is an int: the difference of two comparisons is the sign
    return (len(left) > len(right)) - (len(left) < len(right))
'''
TASK = (
    "Write a function `compare(a: int, b: int) -> int` that compares two integers and returns one of the following: "
    "`-1` if `a` is less than `b`, `0` if they are equal, `1` if `a` is greater than `b`. Raise `ValueError` if either "
    "`a` or `b` is not an integer."
)
FAILING = '''The function is already written.

```python
def compare(a: int, b: int) -> int:
    """Return -1 if a < b, 0 if a == b, and 1 if a > b."""
    return (a > b) - (a < b)
```'''
ANSWER = '''The function just compares the two numbers.

```python
def compare(a: int, b: int) -> int:
    """Compare two integers and return one of the following: -1, 0, 1."""
    if not isinstance(a, int) or not isinstance(b, int):
        raise ValueError(f"both parameters must be integers")
    if a < b:
        return -1
    elif a > b:
        return 1
    else:
        return 0
```'''
TESTS = '''assert compare(1, 2) == -1 and compare(2, 1) == 1 and compare(1, 1) == 0
try:
    compare(1.5, 2)
    outcome = "accepted"
except ValueError:
    outcome = "refused"
assert outcome == "refused"'''


def add_trail(
    report: api.GetReportResponse, *, seed_code: str = SEED_CODE, task: str = TASK, answer: str = ANSWER
) -> None:
    """Add one row with two attempts, and the records that it refers to."""
    prefix = complete(
        pb.Record(
            kind=pb.KIND_PROMPT_PREFIX,
            prompt_prefix=pb.PromptPrefix(
                text="# Tasks, answers and tests\n\n" + "## Example\n<task>…</task>\n\n" * 30
            ),
        )
    )
    settings = json.dumps({"few_shot_count": 3, "max_tokens": 640, "model_revision": REVISION, "temperature": 0.4})
    body = pb.StageConfig(kind=pb.KIND_RESPONSE, name="responses", settings_json=settings)
    stage_config = complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))
    report.trail_references.extend([prefix, stage_config])

    def origin(prompt: int, cached: int, generated: int, seconds: float) -> pb.Provenance:
        return pb.Provenance(
            model=MODEL,
            model_revision=REVISION,
            engine="transformers",
            seed=1596799097837519350,
            prompt_tokens=prompt,
            cached_prompt_tokens=cached,
            generated_tokens=generated,
            seconds=seconds,
        )

    def completion(suffix: str, text: str) -> str:
        written = pb.Completion(prompt_suffix=suffix, text=text, finish_reason="stop_string", stop_string="</tests>")
        record = pb.Record(
            kind=pb.KIND_COMPLETION, parents=[prefix.id], key=f"{len(report.trail_references)}/7", completion=written
        )
        report.trail_references.append(complete(record))
        return record.id

    def verdict(parent: pb.Record, result: sb.Result) -> pb.Record:
        body = pb.VerdictBody(result=result)
        return complete(pb.Record(kind=pb.KIND_VERDICT, parents=[parent.id], verdict=body))

    def response(number: int, text: str, generated: int, seconds: float) -> pb.Record:
        return complete(
            pb.Record(
                kind=pb.KIND_RESPONSE,
                parents=[instruction.id, completion(f"<task>\n{task}\n</task>\n<answer>\n", f"{text}\n</answer>")],
                attempt=number,
                stage_config_id=stage_config.id,
                provenance=origin(2154, 2060, generated, seconds),
                response=pb.Response(answer=text, code="", tests=TESTS),
            )
        )

    seed = complete(
        pb.Record(
            kind=pb.KIND_SEED,
            seed=pb.Seed(
                code=seed_code, name="compare_digest_lengths", path="hmac/digests.py", line=41, license="PSF-2.0"
            ),
        )
    )
    concepts = complete(
        pb.Record(
            kind=pb.KIND_CONCEPT_SET,
            parents=[seed.id, completion(f"<code>\n{seed_code}</code>\n<concepts>\n", "total ordering, ...")],
            provenance=origin(1321, 1233, 10, 8.4),
            concept_set=pb.ConceptSet(concepts=["total ordering", "comparison operators", "three-way comparison"]),
        )
    )
    instruction = complete(
        pb.Record(
            kind=pb.KIND_INSTRUCTION,
            parents=[concepts.id, completion("<concepts>total ordering</concepts>\n<task>\n", task)],
            provenance=origin(1792, 1757, 83, 18.9),
            instruction=pb.Instruction(text=task, category="function", language="Python", difficulty="easy"),
        )
    )
    failing, passing = response(0, FAILING, 169, 56.5), response(1, answer, 186, 61.0)
    failed = verdict(
        failing,
        sb.Result(
            verdict=sb.VERDICT_FAILED_ASSERTION,
            detail="AssertionError",
            failing_line=7,
            failing_source="tests",
            assertions_executed=2,
            assertions_total=2,
            wall_seconds=0.031,
        ),
    )
    passed = verdict(
        passing, sb.Result(verdict=sb.VERDICT_PASSED, assertions_executed=2, assertions_total=2, wall_seconds=0.028)
    )
    chosen = complete(
        pb.Record(
            kind=pb.KIND_DECISION,
            parents=[passing.id],
            decision=pb.Decision(
                outcome=pb.Decision.OUTCOME_KEPT,
                rule="selection.chosen",
                detail="attempt 1 is the lowest that passed and meets the row rules; 2 of at most 4 were drawn",
            ),
        )
    )
    row = complete(
        pb.Record(
            kind=pb.KIND_EXAMPLE,
            parents=[passing.id, passed.id],
            example=pb.Example(
                instruction=f"{task}\n\nYour code should pass these tests:\n\n```python\n{TESTS}\n```",
                response=answer,
                tests=TESTS,
                tests_in_instruction=True,
                lineage=[
                    pb.LineageStep(stage=name, record_id=record.id)
                    for name, record in (
                        ("seeds", seed),
                        ("concepts", concepts),
                        ("instructions", instruction),
                        ("responses", passing),
                    )
                ],
            ),
        )
    )
    report.trail.extend([seed, concepts, instruction, failing, failed, passing, passed, chosen, row])


@pytest.fixture
def small(pipeline: api.Pipeline) -> api.GetReportResponse:
    """The run of docs/first-run.md, with a training and an evaluation typical of a small model."""
    report = api.GetReportResponse(
        run=api.RunStatus(
            id="4be07f21c95a4d0e8f3b6a7c1d2e9f05",
            config=config("first", "stdlib-3.11.7-0a1b2c3d", 6, small=True),
            state=pb.RUN_STATE_SUCCEEDED,
            version=VERSION,
        ),
        stages=[
            stage(
                "seeds",
                42,
                6,
                {"seed.unresolved-name": 20, "seed.no-return": 12, "seed.forbidden-import": 4},
            ),
            stage(
                "concepts", 6, 6, prompt_tokens=8142, cached_prompt_tokens=6165, generated_tokens=70, wall_seconds=31.2
            ),
            stage(
                "instructions",
                6,
                6,
                prompt_tokens=10761,
                cached_prompt_tokens=8785,
                generated_tokens=768,
                wall_seconds=82.4,
            ),
            stage(
                "responses",
                20,
                8,
                {"cut-off": 12},
                prompt_tokens=44230,
                cached_prompt_tokens=40655,
                generated_tokens=9943,
                wall_seconds=342.1,
            ),
            stage("execution", 8, 2, {"FAILED_ASSERTION": 4, "NO_TESTS": 1, "RAISED": 1}, wall_seconds=0.2),
            stage("selection", 2, 2),
        ],
        verdicts={"PASSED": 2, "FAILED_ASSERTION": 4, "NO_TESTS": 1, "RAISED": 1},
        rows=2,
        checkpoints=[checkpoint(24, 24, 2, 0, 1310, 96.0, "float32 on cpu, 1 worker, LoRA rank 16")],
        evaluations=[
            evaluation("humaneval+", tuned=True, passed=51, problems=164, interval=(0.245, 0.386)),
            evaluation("humaneval+", tuned=False, passed=46, problems=164, interval=(0.217, 0.353), undecided=1),
        ],
        comparisons=[comparison("humaneval+", 164, (11, 16), (-0.0366, 0.0915), 0.4421)],
    )
    for one in report.evaluations:
        solved = 11 if one.prompt_style == "base" else 16
        first = 0 if one.prompt_style == "base" else 11
        one.scores.extend(
            api.ProblemScore(problem_id=f"HumanEval/{number}", samples=1, passed=int(first <= number < first + solved))
            for number in range(27)
        )
    add_trail(report)
    add_agreement(report, *compared.records())
    report.pipeline.CopyFrom(pipeline)
    return report


@pytest.fixture
def large(pipeline: api.Pipeline) -> api.GetReportResponse:
    """The paper's funnel, and four benchmarks."""
    dropped = {
        "dedup.near-instruction": 61_204,
        "dedup.near-code": 41_387,
        "dedup.function-names": 29_553,
        "dedup.near-response": 18_776,
        "dedup.instruction": 2_105,
        "dedup.class-names": 1_961,
        "row.placeholder": 907,
        "dedup.response": 96,
        "row.benchmark-text": 31,
        "selection.another-pass-was-chosen": 14_218,
    }
    verdicts = {
        "PASSED": 221_311,
        "FAILED_ASSERTION": 401_978,
        "RAISED": 288_104,
        "SYNTAX_ERROR": 21_950,
        "TIMED_OUT": 9_820,
        "NO_TESTS": 7_411,
        "EXITED_EARLY": 1_204,
        "OUT_OF_MEMORY": 388,
        "OUTPUT_LIMIT": 61,
        "CRASHED": 17,
        "PROCESS_LIMIT": 5,
    }
    executed = sum(verdicts.values())
    benchmarks = {
        "humaneval+": (164, 75, 110, (0.381, 0.534), (0.595, 0.738), (12, 47), (0.128, 0.299), 5.2e-6),
        "mbpp+": (378, 228, 246, (0.553, 0.651), (0.601, 0.697), (31, 49), (0.003, 0.093), 0.0567),
        "humaneval": (164, 82, 121, (0.424, 0.576), (0.664, 0.799), (10, 49), (0.152, 0.323), 3.1e-7),
        "mbpp": (378, 270, 268, (0.667, 0.757), (0.661, 0.752), (38, 36), (-0.05, 0.039), 0.9075),
    }
    report = api.GetReportResponse(
        run=api.RunStatus(
            id="a91c44de02b7436f9d15e8c3b60f7a28",
            config=config("the-stack, quarter million", "the-stack-v1-python-functions", 250_000, small=False),
            state=pb.RUN_STATE_SUCCEEDED,
            version="v-a04c19be77d2f630",
        ),
        stages=[
            stage(
                "seeds",
                1_204_881,
                250_000,
                {
                    "seed.unresolved-name": 511_072,
                    "seed.no-return": 208_344,
                    "seed.near-duplicate": 119_260,
                    "seed.forbidden-import": 61_902,
                    "seed.forbidden-word": 40_117,
                    "seed.no-argument": 9_988,
                    "seed.too-long": 3_771,
                    "seed.benchmark-text": 402,
                    "seed.syntax-error": 25,
                },
            ),
            stage(
                "concepts",
                250_000,
                248_310,
                {"no-concepts": 1_402, "cut-off": 288},
                prompt_tokens=379_000_000,
                cached_prompt_tokens=341_400_000,
                generated_tokens=5_020_000,
                wall_seconds=6_120,
            ),
            stage(
                "instructions",
                248_310,
                238_102,
                {"cut-off": 5_544, "instruction.too-long": 4_317, "empty": 330, "instruction.benchmark-text": 17},
                prompt_tokens=370_981_140,
                cached_prompt_tokens=352_801_002,
                generated_tokens=16_636_770,
                wall_seconds=9_911,
            ),
            stage(
                "responses",
                1_131_490,
                executed,
                {
                    "cut-off": 88_120,
                    "no-tests-section": 60_217,
                    "no-code-block": 21_004,
                    "no-answer-end": 8_311,
                    "no-tests-block": 1_489,
                    "prompt-too-long": 100,
                },
                prompt_tokens=956_109_050,
                cached_prompt_tokens=901_800_777,
                generated_tokens=548_772_650,
                wall_seconds=61_244,
            ),
            stage(
                "execution",
                executed,
                verdicts["PASSED"],
                {name: number for name, number in verdicts.items() if name != "PASSED"},
                wall_seconds=60_871,
            ),
            stage(
                "selection", verdicts["PASSED"], verdicts["PASSED"] - sum(dropped.values()), dropped, wall_seconds=412
            ),
        ],
        verdicts=verdicts,
        rows=verdicts["PASSED"] - sum(dropped.values()),
        checkpoints=[
            checkpoint(3_166, 1_000, 50_661, 118, 58_112_430, 6_900, "bfloat16 on 4 × NVIDIA H200, 4 workers, fsdp")
        ],
    )
    for name, (problems, base, tuned, low, high, better, interval, p_value) in benchmarks.items():
        report.evaluations.append(evaluation(name, tuned=False, passed=base, problems=problems, interval=low))
        report.evaluations.append(evaluation(name, tuned=True, passed=tuned, problems=problems, interval=high))
        report.comparisons.append(comparison(name, problems, better, interval, p_value))
    report.pipeline.CopyFrom(pipeline)
    add_trail(report, seed_code=SEED_CODE + "\n".join(f"    # line {number}" for number in range(60)))
    return report


@pytest.fixture
def empty() -> api.GetReportResponse:
    """A run that has just started."""
    run = api.RunStatus(id="ab" * 16, config=config("", "stdlib", 0, small=False), state=pb.RUN_STATE_RUNNING)
    return api.GetReportResponse(run=run, stages=[stage("seeds", 0, 0), stage("selection", 0, 0)])


@pytest.fixture
def long_names(large: api.GetReportResponse) -> api.GetReportResponse:
    """Names without a place to break them, and very long texts."""
    report = api.GetReportResponse.FromString(large.SerializeToString())
    endless = "an_absurdly_long_identifier_" * 12
    report.run.config.name = endless
    report.run.config.model.model = f"organisation/{endless}"
    report.run.config.seeds.collection = endless
    report.run.version = "v-" + "0123456789abcdef" * 8
    report.run.loop.message = f"failed because of {endless}"
    report.run.loop.steps.add(name=endless, state=pb.RUN_STATE_FAILED, message=endless, done=1, total=10**12)
    report.run.message = f"stopped because of {endless}"
    report.stages[0].reasons[endless] = 999_999_999_999
    report.verdicts[endless] = 12
    report.evaluations[0].model = endless
    report.comparisons[0].test = report.comparisons[1].benchmark = endless
    report.checkpoints[0].checkpoint.setup = endless
    report.checkpoints[0].checkpoint.artifact_url = f"s3://bucket/{endless}"
    del report.trail[:], report.trail_references[:]
    add_trail(
        report,
        seed_code=f"def f(x):\n    return '{endless * 4}'\n",
        task=endless * 20,
        answer=f"{endless}\n```\n{endless}",
    )
    report.trail[0].seed.path = f"{endless}/{endless}.py"
    add_agreement(report, *compared.records(endless * 30))
    return report


@pytest.fixture
def hostile(small: api.GetReportResponse) -> api.GetReportResponse:
    """A report in which every untrusted text is an attack."""
    report = api.GetReportResponse.FromString(small.SerializeToString())
    every = " ".join(HOSTILE)
    for message in (
        report.run,
        report.run.config,
        report.run.config.seeds,
        report.run.config.model,
        *report.evaluations,
    ):
        for field, value in message.ListFields():
            if isinstance(value, str) and field.name not in ("id", "model_revision", "revision"):
                setattr(message, field.name, every)
    report.run.notes.append(every)
    report.run.waiting_for = report.run.loop.message = every
    report.run.loop.steps.add(name=every, state=pb.RUN_STATE_RUNNING, message=every)
    report.run.config.stages[1].properties[1].values.append(every)
    report.run.config.stages[0].stage = every
    report.pipeline.stages[0].title = report.pipeline.stages[0].description = every
    for numbers in (
        report.verdicts,
        *(one.reasons for one in report.stages),
        *(one.verdicts for one in report.evaluations),
    ):
        numbers[every] = 3
    report.stages[1].stage = every
    report.comparisons[0].benchmark = every
    report.comparisons[0].test = every
    for record in (*report.trail, *report.trail_references, *report.checkpoints):
        _poison(record, every)
    report.trail[1].concept_set.concepts[:] = list(HOSTILE)
    report.agreement.Clear()
    add_agreement(report, *compared.records(every))
    return report


def _poison(record: pb.Record, text: str) -> None:
    for message in (record.provenance, getattr(record, record.WhichOneof("body") or "provenance")):
        for field, value in message.ListFields():
            if isinstance(value, str) and not field.name.endswith("_id"):
                setattr(message, field.name, f"{text}\n```python\n{text}\n```\n{text}")
    if record.kind == pb.KIND_VERDICT:
        record.verdict.result.detail = text
