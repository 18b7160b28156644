"""The walk of each seed through the stages. Nothing waits for a chunk: an item goes on as soon as it is ready.

A step first looks in the store for what it would make, so a walk that was interrupted at any moment is simply
walked again: what is finished is found, what is not is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.common.clients import Clients
from codealign.coordinator.method import examples, parsing, prompts
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.rules.duplicates import SEED_THRESHOLD
from codealign.coordinator.rules.near import NearDuplicates
from codealign.coordinator.rules.rows import instruction_drop, row_drop
from codealign.coordinator.rules.seeds import Drop, static_drop
from codealign.coordinator.runs.config import StageConfigs, draws_id, model_of
from codealign.coordinator.runs.execution import Execution, passed
from codealign.coordinator.ground.faults import RunFailed, RunStopped
from codealign.coordinator.runs.generation import Fill, Generation
from codealign.coordinator.ground.tally import Progress
from codealign.coordinator.ground.store import RunStore
from codealign.coordinator.settings import CoordinatorSettings


@dataclass
class Draws:
    """What was drawn for one instruction. Holds ids alone: a run has hundreds of thousands of these."""

    instruction_id: str
    concept_set_id: str
    seed_id: str
    drawn: int = 0
    eligible: list[tuple[int, str, str]] = field(default_factory=list)
    """(attempt, response id, verdict id) of the passes that meet the row rules, in the order of preference."""


class Walk:
    """The generating and judging stages of one run."""

    def __init__(
        self,
        record: pb.Record,
        configs: StageConfigs,
        store: RunStore,
        clients: Clients,
        benchmarks: BenchmarkTexts,
        progress: Progress,
        settings: CoordinatorSettings,
        gate: Callable[[], None],
    ) -> None:
        self.record, self.run = record, record.run
        self.configs, self.store, self.progress = configs, store, progress
        self._benchmarks, self._gate = benchmarks, gate
        self._in_flight = settings.seeds_in_flight
        slots = asyncio.Semaphore(settings.generations_in_flight)

        def generation(name: str, config: pb.Record, section: prompts.Section) -> Generation:
            return Generation(
                name=name,
                made=config.stage_config.kind,
                config_id=config.id,
                draws_id=draws_id(self.run, name),
                settings=getattr(self.run, name),
                model=model_of(self.run, name),
                section=section,
                store=store,
                clients=clients,
                tally=progress[name],
                slots=slots,
                gate=gate,
                seed=self.run.seed,
                timeout=settings.generation_timeout_seconds,
            )

        self._concepts = generation("concepts", configs.concepts, prompts.CONCEPTS)
        self._instructions = generation("instructions", configs.instructions, prompts.INSTRUCTION)
        self._responses = generation("responses", configs.responses, prompts.RESPONSE)
        self._execution = Execution(
            run_id=record.id,
            config_id=configs.execution.id,
            settings=self.run.execution,
            store=store,
            clients=clients,
            tally=progress["execution"],
            slots=asyncio.Semaphore(settings.executions_in_flight),
            gate=gate,
        )

    async def all_seeds(self) -> list[Draws]:
        """Walk every selected seed; what was drawn, for the final selection.

        Raises:
            RunFailed: No seed meets the rules, or a service gave an error that another try cannot mend.
            RunStopped: The run is to stop; everything that was in flight is finished.
        """
        window = asyncio.Semaphore(self._in_flight)
        draws: list[Draws] = []
        stopped: list[str] = []

        async def walk(seed: pb.Record) -> None:
            try:
                if (drawn := await self._walk(seed)) is not None:
                    draws.append(drawn)
            except* RunStopped:
                stopped.append(seed.id)
            finally:
                window.release()

        count = 0
        async with asyncio.TaskGroup() as tasks:
            async for seed in self._selected_seeds():
                await window.acquire()
                if stopped:
                    break
                count += 1
                tasks.create_task(walk(seed))
        if stopped:
            raise RunStopped(f"{len(stopped)} seeds are not through")
        if not count:
            raise RunFailed(
                f"no seed of collection {self.run.seeds.collection!r} meets the seed rules; collect from another "
                "folder (`codealign seeds collect PATH`)"
            )
        return draws

    async def _selected_seeds(self) -> AsyncIterator[pb.Record]:
        """Seeds in the order of their ids: each gets its decision, and those that are kept go on."""
        limit, kept = self.run.seeds.limit, 0
        tally = self.progress["seeds"]
        tally.expected = limit
        near = NearDuplicates(SEED_THRESHOLD, self.run.selection.near_duplicates)
        request = dataset.ScanRequest(kind=pb.KIND_SEED, collection=self.run.seeds.collection)
        async for seed in self.store.scan(request):
            drop = static_drop(seed.seed, self._benchmarks)
            if drop is None and (found := near.find(seed.seed.code)):
                near.drop(found[0], seed.seed.code)
                drop = Drop("seed.near-duplicate", f"estimated similarity {found[1]:.2f}", found[0])
            if drop is not None:
                await self.store.append(decision([seed.id], self.configs.seeds.id, drop))
                tally.finish(drop.rule)
                continue
            near.add(seed.id, seed.seed.code)
            selected = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule="seed.selected", detail="meets every rule")
            await self.store.append_all(
                [
                    seed,
                    pb.Record(
                        kind=pb.KIND_DECISION,
                        parents=[seed.id, self.record.id],
                        stage_config_id=self.configs.seeds.id,
                        decision=selected,
                    ),
                ]
            )
            kept += 1
            tally.finish(None)
            yield seed
            if limit and kept >= limit:
                return

    async def _walk(self, seed: pb.Record) -> Draws | None:
        concept_set = await self._one(self._concepts, seed, seed.id, self._concepts_prompt(seed), _fill_concepts)
        if concept_set is None:
            return None
        key = self._concepts.key(seed.id)
        prop = self._property(key)
        prompt = self._instruction_prompt(concept_set, key, prop)
        fill = _fill_instruction(prop, concept_set)
        instruction = await self._one(self._instructions, concept_set, key, prompt, fill)
        if instruction is None:
            return None
        drop = instruction_drop(
            instruction.instruction.text,
            max_words=self.run.selection.instruction_words,
            benchmarks=self._benchmarks,
        )
        if drop is not None:
            await self.store.append(decision([instruction.id], self.configs.rows.id, drop))
            tally = self.progress["instructions"]
            tally.kept -= 1
            tally.reasons[drop.rule] += 1
            return None
        draws = Draws(instruction.id, concept_set.id, seed.id)
        await self.draw_on(draws, instruction)
        return draws

    async def _one(
        self, generation: Generation, parent: pb.Record, key: str, prompt: prompts.Prompt, fill: Fill
    ) -> pb.Record | None:
        """The only child of a parent, or None where it was rejected."""
        child = None
        async for record in generation.draw(parent, key, [0], prompt, fill):
            child = record
        return child if child is not None and child.kind == generation.made else None

    def instruction_key(self, draws: Draws) -> str:
        """What everything random about an instruction derives from."""
        return self._instructions.key(self._concepts.key(draws.seed_id))

    async def draw_on(self, draws: Draws, instruction: pb.Record) -> bool:
        """Draw rounds of responses until one more is eligible or the attempts are used up; True if one is."""
        settings, eligible = self.run.responses, len(draws.eligible)
        everything, key = self.run.selection.random_pass, self.instruction_key(draws)
        while draws.drawn < settings.attempts and (everything or len(draws.eligible) == eligible):
            end = settings.attempts if everything else min(draws.drawn + settings.round_size, settings.attempts)
            found = await self._round(instruction, key, range(draws.drawn, end))
            draws.drawn = end
            if everything:
                found.sort(key=lambda item: records.seed_for(self.run.seed, "pass", self._responses.key(key, item[0])))
            draws.eligible += found
        return len(draws.eligible) > eligible

    async def _round(self, instruction: pb.Record, key: str, attempts: range) -> list[tuple[int, str, str]]:
        """Draw these attempts and judge each as it comes; the eligible ones, lowest attempt first."""
        judged: list[asyncio.Task[tuple[int, str, str] | None]] = []
        prompt = self._response_prompt(instruction, key)
        async with asyncio.TaskGroup() as tasks:
            async for record in self._responses.draw(instruction, key, attempts, prompt, _fill_response):
                if record.kind == pb.KIND_RESPONSE:
                    judged.append(tasks.create_task(self._judge(record)))
        return sorted(item for task in judged if (item := task.result()) is not None)

    async def _judge(self, response: pb.Record) -> tuple[int, str, str] | None:
        verdict = await self._execution.judge(response)
        if verdict is None or not passed(verdict):
            return None
        body = response.response
        if drop := row_drop(body.text, body.code, self._benchmarks):
            await self.store.append(decision([response.id], self.configs.rows.id, drop))
            self.progress["selection"].finish(drop.rule)
            return None
        return response.attempt, response.id, verdict.id

    def _property(self, key: str) -> tuple[str, str, str]:
        """Category, language and difficulty, drawn by the concept set's key."""
        draw = records.seed_for(self.run.seed, "property", key)
        categories, difficulties = self.run.categories, self.run.difficulties
        category = categories[draw % len(categories)]
        return category, "Python", difficulties[draw // len(categories) % len(difficulties)]

    def _concepts_prompt(self, seed: pb.Record) -> prompts.Prompt:
        shots = self._shots(self._concepts, seed.id)
        return prompts.Prompt(
            prompts.concepts_prefix(shots),
            prompts.concepts_suffix(len(shots) + 1, "\n".join([*seed.seed.imports, seed.seed.code])),
        )

    def _instruction_prompt(self, concept_set: pb.Record, key: str, prop: tuple[str, str, str]) -> prompts.Prompt:
        shots = self._shots(self._instructions, key)
        return prompts.Prompt(
            prompts.instruction_prefix(shots),
            prompts.instruction_suffix(len(shots) + 1, *prop, concept_set.concept_set.concepts),
        )

    def _response_prompt(self, instruction: pb.Record, key: str) -> prompts.Prompt:
        shots = self._shots(self._responses, key)
        return prompts.Prompt(
            prompts.response_prefix(shots),
            prompts.response_suffix(len(shots) + 1, instruction.instruction.text),
        )

    def _shots(self, generation: Generation, parent_key: str) -> tuple[examples.FewShot, ...]:
        group = generation.group(parent_key)
        difficulties = () if generation.name == "concepts" else self.run.difficulties
        count = generation.settings.few_shots
        return tuple(
            examples.ordering(self.run.few_shot_set, self.run.seed, generation.name, group, count, difficulties)
        )


def decision(parents: list[str], config_id: str, drop: Drop) -> pb.Record:
    """The record of a drop; the duplicate's original is a second parent, since the drop depends on it."""
    return pb.Record(
        kind=pb.KIND_DECISION,
        parents=[*parents, *([drop.duplicate_of] if drop.duplicate_of else [])],
        stage_config_id=config_id,
        decision=pb.Decision(
            outcome=pb.Decision.OUTCOME_DROPPED, rule=drop.rule, detail=drop.detail, duplicate_of=drop.duplicate_of
        ),
    )


def _fill_concepts(record: pb.Record, text: str) -> parsing.Rejected | None:
    terms = parsing.concepts(text, cut_off=False)
    if isinstance(terms, parsing.Rejected):
        return terms
    record.concept_set.concepts.extend(terms)
    return None


def _fill_instruction(prop: tuple[str, str, str], concept_set: pb.Record) -> Fill:
    category, language, difficulty = prop

    def fill(record: pb.Record, text: str) -> parsing.Rejected | None:
        task = parsing.instruction(text, cut_off=False)
        if isinstance(task, parsing.Rejected):
            return task
        record.instruction.CopyFrom(
            pb.Instruction(
                text=task,
                category=category,
                language=language,
                difficulty=difficulty,
                concepts=concept_set.concept_set.concepts,
            )
        )
        return None

    return fill


def _fill_response(record: pb.Record, text: str) -> parsing.Rejected | None:
    parsed = parsing.response(text, cut_off=False)
    if isinstance(parsed, parsing.Rejected):
        return parsed
    record.response.CopyFrom(pb.Response(text=text, answer=parsed.answer, code=parsed.code, tests=parsed.tests))
    return None
