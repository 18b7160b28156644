"""The final selection: of each instruction the preferred pass, then duplicates, in the order of the instructions' keys.

The order is fixed, so the same verdicts give the same rows whenever and in whatever order they came. Where a row
falls to de-duplication, the instruction's next pass takes its place, drawn anew if it must be; the rows that were
kept before stay. With the strategy "band-collision" for near duplicates, a row that fell goes on to join others to
the row that it collided with, by the text that it fell for alone: its instruction's next pass has the same instruction
and is to get its chance. Two kept rows stay, though a later one may join their clusters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records
from codealign.coordinator.rules.duplicates import Row, RowDuplicates
from codealign.coordinator.rules.rows import can_carry_tests, with_tests
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.walk import Draws, Walk, decision

NOT_CHOSEN = "selection.another-pass-was-chosen"
CHOSEN = "selection.chosen"


class Selection:
    """Chooses the rows of one run."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._run, self._store = walk.run, walk.store
        # A choice is the run's: another run with more draws may choose otherwise, so the run is a second parent.
        self._run_id = walk.record.id
        self._config_id = walk.configs.selection.id
        self._tally = walk.progress["selection"]
        settings = self._run.selection
        self._duplicates = RowDuplicates(settings.near_duplicate_threshold, settings.near_duplicates)

    async def choose(self, all_draws: Sequence[Draws]) -> int:
        """Append the decisions and the Example records; the number of rows."""
        rows = 0
        turn = [(draws, 0) for draws in sorted(all_draws, key=self._walk.instruction_key) if draws.eligible]
        self._tally.expected = len(turn)
        while turn:
            fallen = []
            for draws, rank in turn:
                if await self._offer(draws, rank):
                    rows += 1
                else:
                    fallen.append((draws, rank + 1))
            nexts = await asyncio.gather(*(self._has_next(draws, rank) for draws, rank in fallen))
            turn = [item for item, there in zip(fallen, nexts, strict=True) if there]
        return rows

    async def _has_next(self, draws: Draws, rank: int) -> bool:
        if rank < len(draws.eligible):
            return True
        instruction = (await self._store.get([draws.instruction_id]))[draws.instruction_id]
        return await self._walk.draw_on(draws, instruction)

    async def _offer(self, draws: Draws, rank: int) -> bool:
        attempt, response_id, verdict_id = draws.eligible[rank]
        there = await self._store.get([draws.instruction_id, response_id])
        instruction, response = there[draws.instruction_id].instruction, there[response_id]
        body = response.response
        drop = self._duplicates.offer(Row(response_id, instruction.text, body.answer, body.code))
        if drop is not None:
            await self._store.append(decision([response_id], self._config_id, drop))
            self._tally.finish(drop.rule)
            return False
        detail = self._why(draws, rank, attempt)
        chosen = pb.Decision(outcome=pb.Decision.OUTCOME_KEPT, rule=CHOSEN, detail=detail)
        others = list(draws.eligible[rank + 1 :])
        await self._store.append_all(
            [
                pb.Record(
                    kind=pb.KIND_DECISION,
                    parents=[response_id, self._run_id],
                    stage_config_id=self._config_id,
                    decision=chosen,
                ),
                self._example(draws, there[draws.instruction_id], response, verdict_id),
                *(
                    decision([other, self._run_id], self._config_id, Drop(NOT_CHOSEN, f"attempt {attempt} was chosen"))
                    for _, other, _ in others
                ),
            ]
        )
        self._tally.finish(None)
        for _ in others:
            self._tally.finish(NOT_CHOSEN)
        return True

    def _why(self, draws: Draws, rank: int, attempt: int) -> str:
        if self._run.selection.random_pass:
            order = f"number {rank + 1} in a random order of {len(draws.eligible)} passes"
        else:
            order = f"attempt {attempt} is the lowest that passed and meets the row rules"
        fell = f"; {rank} before it fell to de-duplication" if rank else ""
        return f"{order}{fell}; {draws.drawn} of at most {self._run.responses.attempts} were drawn"

    def _example(self, draws: Draws, parent: pb.Record, response: pb.Record, verdict_id: str) -> pb.Record:
        instruction, body = parent.instruction, response.response
        key = self._walk.instruction_key(draws)
        chance = records.seed_for(self._run.seed, "tests-in-instruction", key) / 2**63
        carry = chance < self._run.selection.tests_in_instruction and can_carry_tests(instruction.text, body.tests)
        return pb.Record(
            kind=pb.KIND_EXAMPLE,
            parents=[response.id, verdict_id],
            stage_config_id=self._config_id,
            example=pb.Example(
                instruction=with_tests(instruction.text, body.tests) if carry else instruction.text,
                response=body.answer,
                tests=body.tests,
                category=instruction.category,
                difficulty=instruction.difficulty,
                concepts=instruction.concepts,
                seed_id=draws.seed_id,
                concept_set_id=draws.concept_set_id,
                instruction_id=parent.id,
                response_id=response.id,
                verdict_id=verdict_id,
                tests_in_instruction=carry,
                model_revision=response.provenance.model_revision,
            ),
        )
