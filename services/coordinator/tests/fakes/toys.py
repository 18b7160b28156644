"""Toy pipelines of every shape, a model function for them, and a run of one of them over the fakes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.message import Message

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.pipelines.few_shots import FewShot, FewShotSets
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import (
    NOT_CHOSEN,
    READING_REASONS,
    Asked,
    Execution,
    Item,
    Seeds,
    Selection,
    Settings,
    Stage,
    Writing,
)
from codealign.coordinator.reading.parsing import Rejected
from codealign.coordinator.reading.section import Section
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import Row
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.config import run_records, with_defaults
from codealign.coordinator.runs.progress import empty_progress
from codealign.coordinator.runs.runner import Outcome, work
from codealign.coordinator.settings import CoordinatorSettings
from fakes import FakeServices
from fakes.inference import REVISION
from fakes.sandbox import IMAGE_DIGEST, PYTHON_VERSION

SEEDS = "seeds"
FEW_SHOTS = FewShotSets("codealign.coordinator.pipelines.selfcodealign", "selfcodealign")


class ToySeeds(Seeds):
    name = "seeds"
    title = "Seeds"
    description = "Seeds without the word bad."
    makes = pb.KIND_SEED
    VERSION = 1
    reasons: ClassVar[Mapping[str, str]] = {"seed.bad": "it is bad"}
    threshold = 0.5

    def drop(self, record: pb.Record, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        if "explode" in record.seed.code:
            raise SyntaxError("duplicate argument 'x' in function definition")
        return Drop("seed.bad", "it is bad") if "bad" in record.seed.code else None

    def text(self, record: pb.Record) -> str:
        return record.seed.code


class ToyWriting(Writing):
    """Stage that reads a record from each line. A line `boom` raises an error as a hostile text may."""

    title = "Toy"
    description = "Lines."
    VERSION = 1
    reasons = dict(READING_REASONS) | {"toy.short": "it is short"}

    def prefix(self, shots: Sequence[FewShot]) -> str:
        return f"{self.name}: {', '.join(shot.name for shot in shots)}\n"

    def suffix(self, item: Item, asked: Asked) -> str:
        return f"{text_of(item.record)} #{item.key}\n"

    def parse(self, text: str, item: Item, asked: Asked) -> Sequence[Message] | Rejected:
        lines = [line for line in text.split("\n") if line.strip()]
        if "boom" in lines:
            raise RecursionError("maximum recursion depth exceeded while unparsing")
        if not lines:
            return Rejected("empty", "nothing")
        if self.makes == pb.KIND_INSTRUCTION:
            return [pb.Instruction(text=line) for line in lines]
        return [pb.Response(answer=line, code=f"x = {line!r}", tests="assert x") for line in lines]

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        assert item.text, "the section is given to the rules"
        if "faulty-rule" in text_of(item.record):
            raise ValueError("the rule does not understand it")
        return Drop("toy.short", "it is short") if text_of(item.record).startswith("short") else None


class ToyExecution(Execution):
    name = "execution"
    title = "Execution"
    description = "Runs."
    VERSION = 1
    reasons: ClassVar[Mapping[str, str]] = {"FAILED_ASSERTION": "failed"}

    def program(self, item: Item) -> sb.Program:
        if "unprogrammable" in item.record.response.answer:
            raise ValueError("no program")
        response = item.record.response
        return sb.Program(language=sb.LANGUAGE_PYTHON, code=response.code, tests=response.tests)


class ToySelection(Selection):
    name = "selection"
    title = "Selection"
    description = "Chooses."
    VERSION = 1
    reasons: ClassVar[Mapping[str, str]] = {"row.placeholder": "a placeholder", NOT_CHOSEN: "another one"}

    def drop(self, item: Item, settings: Settings, benchmarks: BenchmarkTexts) -> Drop | None:
        assert item.text
        return Drop("row.placeholder", "todo") if "todo" in item.text else None

    def compared(self, item: Item, settings: Settings) -> Row:
        if "uncomparable" in item.record.response.answer:
            raise RecursionError("maximum recursion depth exceeded in comparison")
        parent = list(item.line.values())[-2]
        return Row(item.record.id, text_of(parent), item.record.response.answer, item.record.response.code)

    def example(self, item: Item, settings: Settings, parent_key: str) -> pb.Example:
        parent = list(item.line.values())[-2]
        return pb.Example(instruction=text_of(parent), response=item.record.response.answer)


def text_of(record: pb.Record) -> str:
    """Return the text of a record."""
    return record.seed.code or record.instruction.text or record.response.answer


def writing(name: str, parent: str, makes: pb.Kind.ValueType, *, version: int = 1, **defaults: int) -> Writing:
    """Return a writing stage of the given shape."""
    values = {
        "name": name,
        "parent": parent,
        "makes": makes,
        "VERSION": version,
        "section": Section(name, "<item>"),
        "defaults": pb.StageSettings(**{"max_tokens": 64, "few_shots": 1, "attempts": 1} | defaults),  # type: ignore[arg-type]
    }
    return type("Toy", (ToyWriting,), values)()  # type: ignore[no-any-return]


def judged(stage: type[Stage], parent: str) -> Stage:
    """Return an execution or a selection that follows a stage."""
    return type(stage.__name__, (stage,), {"parent": parent})()  # type: ignore[no-any-return]


def pipeline(name: str, *stages: Writing, executes: bool = True) -> Pipeline:
    """Return a pipeline whose candidates are the items of the last writing stage."""
    last = stages[-1].name
    ends = [judged(ToyExecution, last), judged(ToySelection, "execution")] if executes else [judged(ToySelection, last)]
    return Pipeline(name, "a toy", (ToySeeds(), *stages, *ends), FEW_SHOTS, "0" * 64)


def shapes(version: int = 1) -> dict[str, Pipeline]:
    """Return a pipeline of each shape, by name; `version` applies to the stages that parse."""
    instruction, response = pb.KIND_INSTRUCTION, pb.KIND_RESPONSE
    found = [
        pipeline(
            "one-line",
            writing("instructions", "seeds", instruction, version=version),
            writing("responses", "instructions", response, version=version, attempts=6),
        ),
        pipeline(
            "fan-out",
            writing("instructions", "seeds", instruction, version=version, attempts=3),
            writing("responses", "instructions", response, version=version, attempts=4, round_size=2),
        ),
        pipeline(
            "same-kind",
            writing("instructions", "seeds", instruction, version=version),
            writing("evolved", "instructions", instruction, version=version),
            writing("evolved-again", "evolved", instruction, version=version),
            writing("responses", "evolved-again", response, version=version, attempts=2),
        ),
        pipeline("no-execution", writing("responses", "seeds", response, version=version, attempts=2), executes=False),
    ]
    return {each.name: each for each in found}


def seeds(count: int, *extra: str) -> list[pb.Record]:
    """Return `count` distinct seeds, plus seeds with the given texts."""
    texts = [f"def seed_{number}(): return {digest(number)}" for number in range(count)]
    return [records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=text))) for text in [*texts, *extra]]


def digest(*parts: object) -> str:
    """Return words that depend only on the arguments."""
    text = hashlib.sha256(repr(parts).encode()).hexdigest()
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))


def number(*parts: object) -> int:
    """Return a number that depends only on the arguments."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)


def said(text: str, reason: inf.FinishReason.ValueType = inf.FINISH_REASON_END_TOKEN) -> inf.Completion:
    """Return a completion with this text."""
    return inf.Completion(text=text, finish_reason=reason)


def writes(request: inf.GenerateRequest, sample: inf.Sample) -> inf.Completion:
    """Return one to three lines chosen by the sample's seed; some are unreadable, too short or placeholders."""
    chance = number(sample.seed, "what") % 12
    if chance == 0:
        return said("")
    if chance == 1:
        return said("cut", inf.FINISH_REASON_LENGTH)
    lines = 1 + (number(sample.seed, "lines") % 3 if request.prompt.startswith("instructions:") else 0)
    first = {2: "short ", 3: "todo "}.get(chance, "")
    return said("\n".join(first + digest(sample.seed, line) for line in range(lines)))


def judges(program: sb.Program) -> sb.Result:
    """Let half of the programs pass."""
    passes = number(program.code) % 2
    return sb.Result(verdict=sb.VERDICT_PASSED if passes else sb.VERDICT_FAILED_ASSERTION, wall_seconds=0.01)


def run_record(name: str, strategy: str = "first-pass", **settings: object) -> pb.Record:
    """Return a complete Run record for a pipeline."""
    run = pb.Run(pipeline=name, seeds=pb.SeedSelection(collection=SEEDS), seed=7, **settings)  # type: ignore[arg-type]
    run.model.model, run.model.revision = "model", REVISION
    run.selection.strategy = strategy
    run = with_defaults(run)
    if run.execution.profile:
        run.execution.image_digest, run.execution.python_version = IMAGE_DIGEST, PYTHON_VERSION
    return run_records(run)[1]


@dataclass
class Bench:
    """Test bench: a run over the fakes."""

    run: pb.Record
    fakes: FakeServices = field(default_factory=FakeServices)
    settings: CoordinatorSettings = field(
        default_factory=lambda: CoordinatorSettings(dataset_address="-", inference_address="-", sandbox_address="-")
    )
    gate: Callable[[], None] = lambda: None
    progress: Progress = field(default_factory=lambda: Progress(()))
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fakes.inference.writes = writes
        self.fakes.sandbox.judges = judges

    async def work(self) -> Outcome:
        """Execute the run."""
        dataset = self.fakes.dataset
        config = run_records(self.run.run)[0]
        dataset.put(config, self.run, collection=self.run.id)
        self.progress = empty_progress(self.run.run)
        async with RunStore(dataset, self.run.id) as store:
            return await work(
                self.run,
                self.fakes.services,
                store,
                BenchmarkTexts(),
                self.settings,
                self.progress,
                self.gate,
                self.said.append,
            )

    def rows(self) -> list[tuple[str, str]]:
        """Return the instruction and response of each row."""
        return sorted((row.example.instruction, row.example.response) for row in self.examples())

    def examples(self) -> list[pb.Record]:
        """Return the records of the rows."""
        return self.fakes.dataset.of_kind(pb.KIND_EXAMPLE, self.run.id)

    def rejections(self) -> list[pb.Rejection]:
        """Return the rejections."""
        return [record.rejection for record in self.fakes.dataset.of_kind(pb.KIND_REJECTION, self.run.id)]

    async def counts(self) -> Sequence[ds.RecordCount]:
        """Return the record counts of the run's collection."""
        return (await self.fakes.dataset.count(ds.CountRequest(collection=self.run.id))).counts
