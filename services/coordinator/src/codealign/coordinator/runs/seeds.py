"""Selection of a run's seeds: the rules, then near duplicates, in the order of the seeds' ids."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from codealign.api.dataset.v1 import dataset_pb2 as dataset
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.pipelines import INTERNAL_ERROR
from codealign.coordinator.rules.near import NearDuplicates
from codealign.coordinator.rules.seeds import Drop
from codealign.coordinator.runs.context import Context


async def judged_seeds(context: Context) -> AsyncGenerator[tuple[pb.Record, Drop | None]]:
    """Yield seeds in the order of their ids, each with the rule that drops it; seeds with errors are skipped."""
    stage = context.pipeline.seeds
    limit, kept, tally = context.run.seeds.limit, 0, context.progress[stage.name]
    tally.expected = limit
    near = None
    if stage.threshold is not None:
        near = NearDuplicates(stage.threshold, context.run.selection.near_duplicates)
    request = dataset.ScanRequest(kind=stage.makes, collection=context.run.seeds.collection)
    async for seed in context.store.scan(request):
        try:
            drop = stage.drop(seed, context.settings, context.benchmarks)
            if drop is None and near is not None:
                drop = _near_drop(near, seed.id, stage.text(seed))
        except Exception as error:  # whatever a stage's code raises
            await context.reject(stage, [seed.id], context.configs[stage.name].id, error)
            tally.finish(INTERNAL_ERROR)
            continue
        context.breaker.saw(stage.name, None)
        tally.finish(drop.rule if drop else None)
        kept += drop is None
        yield seed, drop
        if limit and kept >= limit:
            return


def _near_drop(near: NearDuplicates, seed_id: str, text: str) -> Drop | None:
    """Apply the rule for near duplicates to a seed that meets the others, and remember it if it is kept."""
    if found := near.find(text):
        near.drop(found[0], text)
        return Drop("seed.near-duplicate", f"estimated similarity {found[1]:.2f}", found[0])
    near.add(seed_id, text)
    return None
