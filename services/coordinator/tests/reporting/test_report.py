"""A run's report: its content, and its cost, which does not grow with the number of records."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.coordinator import pipelines
from codealign.coordinator.ground.tally import from_counts
from codealign.coordinator.reporting import report
from codealign.coordinator.runs import config
from fakes import FakeServices

REVISION = "ab" * 32


@dataclass
class Filled:
    """A stored run with three seeds, one of which becomes a row."""

    services: FakeServices = field(default_factory=FakeServices)
    pipeline: str = "selfcodealign"
    cached_is_unknown: bool = False

    def __post_init__(self) -> None:
        self.run = config.with_defaults(
            pb.Run(
                pipeline=self.pipeline,
                seeds=pb.SeedSelection(collection="seeds"),
                model=pb.ModelChoice(model="m", revision=REVISION),
            )
        )
        self.configs = config.stage_configs(self.run)
        own, self.record = config.run_records(self.run)
        self.id = self.record.id
        self.add(own, self.record, *self.configs.all())
        self.prefix = self.add(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text="examples")))

    def add(self, *given: pb.Record) -> pb.Record:
        return self.services.dataset.put(*given, collection=self.id)[-1]

    def seed(self, number: int, rule: str = "") -> pb.Record:
        seed = self.add(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code=f"def f{number}(): ...", name=f"f{number}")))
        dropped = pb.Decision(
            outcome=pb.Decision.OUTCOME_DROPPED if rule else pb.Decision.OUTCOME_KEPT, rule=rule or "seed.selected"
        )
        self._decide(seed, "seeds", dropped)
        return seed

    def _decide(self, about: pb.Record, stage: str, decision: pb.Decision) -> None:
        self.add(
            pb.Record(
                kind=pb.KIND_DECISION,
                parents=[about.id, self.id],
                stage_config_id=self.configs[stage].id,
                decision=decision,
            )
        )

    def read(self, item: pb.Record, stage: str, kind: pb.Kind.ValueType, **body: object) -> pb.Record:
        """Store a completion and the record parsed from it."""
        tokens = pb.Provenance(prompt_tokens=100, generated_tokens=7, model="m", seconds=1.5)
        tokens.cached_prompt_tokens_unknown = self.cached_is_unknown
        tokens.cached_prompt_tokens = 0 if self.cached_is_unknown else 60
        completion = self.add(
            pb.Record(
                kind=pb.KIND_COMPLETION,
                parents=[self.prefix.id],
                stage_config_id=self.configs.sampling(stage).id,
                key=f"{item.id}/{stage}",
                completion=pb.Completion(prompt_suffix=f"suffix of {stage}", text=f"text of {stage}"),
                provenance=tokens,
            )
        )
        return self.add(
            pb.Record(
                kind=kind,
                parents=[item.id, completion.id],
                stage_config_id=self.configs[stage].id,
                provenance=tokens,
                **body,  # type: ignore[arg-type]
            )
        )

    def fill(self) -> None:
        self.seed(1, "seed.no-return")
        concepts = self.read(
            self.seed(2), "concepts", pb.KIND_CONCEPT_SET, concept_set=pb.ConceptSet(concepts=["sorting"])
        )
        self.read(
            self.seed(3),
            "concepts",
            pb.KIND_REJECTION,
            rejection=pb.Rejection(rejected_kind=pb.KIND_CONCEPT_SET, reason="no-concepts"),
        )
        instruction = self.read(
            concepts, "instructions", pb.KIND_INSTRUCTION, instruction=pb.Instruction(text="Sort a list.")
        )
        response = self.read(instruction, "responses", pb.KIND_RESPONSE, response=pb.Response(answer="answer"))
        verdict = self.add(
            pb.Record(
                kind=pb.KIND_VERDICT,
                parents=[response.id],
                stage_config_id=self.configs["execution"].id,
                verdict=pb.VerdictBody(result=sb.Result(verdict=sb.VERDICT_PASSED)),
            )
        )
        self._decide(response, "selection", pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule="selection.chosen"))
        self.line = [concepts, instruction, response, verdict]
        self.row = self.add(
            pb.Record(
                kind=pb.KIND_EXAMPLE,
                parents=[response.id, verdict.id],
                stage_config_id=self.configs["selection"].id,
                example=pb.Example(instruction="Sort a list.", response="answer", verdict_id=verdict.id),
            )
        )

    def log(self, token: str, **seconds: float) -> None:
        self.add(
            pb.Record(kind=pb.KIND_WORK_LOG, parents=[self.id], key=token, work_log=pb.WorkLog(busy_seconds=seconds))
        )

    async def status(self) -> api.RunStatus:
        request = ds.CountRequest(collection=self.id)
        counts = (await self.services.dataset.count(request)).counts
        progress = from_counts(counts, self.configs)
        return api.RunStatus(id=self.id, config=self.run, stages=progress.to_wire())

    async def report(self) -> api.GetReportResponse:
        return await report.build(self.services.services, await self.status())


@pytest.fixture
def filled() -> Filled:
    made = Filled()
    made.fill()
    return made


async def test_every_stage_has_its_items_its_reasons_and_its_tokens(filled: Filled) -> None:
    told = await filled.report()
    stages = {stage.stage: stage for stage in told.stages}
    assert list(stages) == ["seeds", "concepts", "instructions", "responses", "execution", "selection"]
    assert (stages["seeds"].items, stages["seeds"].kept, dict(stages["seeds"].reasons)) == (3, 2, {"seed.no-return": 1})
    concepts = stages["concepts"]
    assert (concepts.items, concepts.kept, dict(concepts.reasons)) == (2, 1, {"no-concepts": 1})
    assert (concepts.prompt_tokens, concepts.cached_prompt_tokens, concepts.generated_tokens) == (200, 120, 14)
    assert concepts.unknown_prompt_tokens == 0
    assert (stages["responses"].prompt_tokens, stages["execution"].prompt_tokens) == (100, 0)
    assert dict(told.verdicts) == {"PASSED": 1}
    assert told.rows == 1


async def test_prompt_tokens_of_which_it_is_unknown_whether_they_were_cached_stay_apart(filled: Filled) -> None:
    filled.cached_is_unknown = True
    again = pb.Rejection(rejected_kind=pb.KIND_CONCEPT_SET, reason="no-concepts")
    filled.read(filled.seed(4), "concepts", pb.KIND_REJECTION, rejection=again)
    concepts = next(stage for stage in (await filled.report()).stages if stage.stage == "concepts")
    tokens = (concepts.prompt_tokens, concepts.cached_prompt_tokens, concepts.unknown_prompt_tokens)
    assert tokens == (300, 120, 100)


async def test_wall_seconds_are_those_of_every_coordinator_that_worked_on_it(filled: Filled) -> None:
    filled.log("1/0", concepts=2.5, responses=10.0)
    filled.log("1/1", responses=5.0)
    filled.log("2/0", responses=1.0)
    wall = {stage.stage: stage.wall_seconds for stage in (await filled.report()).stages}
    assert (wall["concepts"], wall["responses"], wall["selection"]) == (2.5, 16.0, 0.0)


async def test_a_row_is_told_with_prompts_and_texts_from_its_seed(filled: Filled) -> None:
    told = await filled.report()
    kinds = [record.kind for record in told.trail]
    assert kinds[0] == pb.KIND_SEED
    assert [kind for kind in kinds if kind != pb.KIND_DECISION] == [
        pb.KIND_SEED,
        pb.KIND_CONCEPT_SET,
        pb.KIND_INSTRUCTION,
        pb.KIND_RESPONSE,
        pb.KIND_VERDICT,
        pb.KIND_EXAMPLE,
    ]
    assert {record.decision.rule for record in told.trail if record.kind == pb.KIND_DECISION} == {
        "seed.selected",
        "selection.chosen",
    }
    references = {record.id: record for record in told.trail_references}
    for record in told.trail:
        assert record.stage_config_id in {*references, ""}
    texts = {
        references[record.parents[1]].completion.text
        for record in told.trail
        if record.kind in (pb.KIND_CONCEPT_SET, pb.KIND_INSTRUCTION, pb.KIND_RESPONSE)
    }
    assert texts == {"text of concepts", "text of instructions", "text of responses"}
    assert filled.prefix.id in references


async def test_the_decisions_of_other_runs_are_not_told(filled: Filled) -> None:
    decision = pb.Decision(outcome=pb.Decision.OUTCOME_DROPPED, rule="another.runs")
    filled.services.dataset.put(
        pb.Record(kind=pb.KIND_DECISION, parents=[filled.line[2].id], decision=decision), collection="cd" * 16
    )
    rules = {record.decision.rule for record in (await filled.report()).trail}
    assert "another.runs" not in rules


async def test_a_run_without_a_row_has_no_trail() -> None:
    told = await Filled().report()
    assert (told.rows, len(told.trail), len(told.trail_references)) == (0, 0, 0)
    assert [stage.items for stage in told.stages] == [0] * 6


async def test_the_pipeline_says_what_stages_and_reasons_mean(filled: Filled) -> None:
    told = await filled.report()
    assert told.pipeline == pipelines.describe(pipelines.get("selfcodealign"))


async def test_a_run_of_a_pipeline_that_is_not_here_is_told_by_its_records(filled: Filled) -> None:
    filled.log("1/0", concepts=2.5)
    status = await filled.status()
    del status.stages[:]
    status.config.pipeline = "gone"
    told = await report.build(filled.services.services, status)
    assert not told.HasField("pipeline")
    stages = {stage.stage: stage for stage in told.stages}
    assert list(stages) == ["seed-rules", "concepts", "instructions", "responses", "execution", "selection"]
    assert (stages["seed-rules"].kept, dict(stages["seed-rules"].reasons)) == (2, {"seed.no-return": 1})
    assert (stages["concepts"].items, stages["concepts"].kept, stages["concepts"].prompt_tokens) == (2, 1, 200)
    assert (stages["concepts"].wall_seconds, stages["selection"].kept) == (2.5, 1)
    assert told.trail[-1].id == filled.row.id


async def test_its_cost_does_not_grow_with_the_records(filled: Filled) -> None:
    calls = filled.services.dataset.control.calls

    async def cost() -> int:
        status = await filled.status()
        calls.clear()
        await report.build(filled.services.services, status)
        return calls.total()

    before = await cost()
    for number in range(100, 400):
        seed = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(name=f"f{number}")))
        filled.add(seed)
        filled.read(seed, "concepts", pb.KIND_CONCEPT_SET, concept_set=pb.ConceptSet(concepts=["x"]))
    assert await cost() == before
    assert before < 30


async def test_checkpoints_on_the_runs_version_are_told_oldest_first(filled: Filled) -> None:
    made = []
    for seconds, revision in ((20, "b" * 64), (10, "a" * 64)):
        record = pb.Record(kind=pb.KIND_CHECKPOINT, checkpoint=pb.Checkpoint(revision=revision, dataset_version="v-1"))
        record.provenance.created_at.FromSeconds(seconds)
        made.append(record)
    other = pb.Record(kind=pb.KIND_CHECKPOINT, checkpoint=pb.Checkpoint(revision="c" * 64, dataset_version="v-2"))
    filled.services.dataset.put(*made, other)
    status = await filled.status()
    status.version = "v-1"
    told = await report.build(filled.services.services, status)
    assert [record.checkpoint.revision[0] for record in told.checkpoints] == ["a", "b"]
