"""Shared prompt prefixes in the store, appended once per run rather than with every draw."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.coordinator.ground.store import RunStore

_REMEMBERED = 4096
"""Maximum remembered prefixes. A stage without prefix groups has one per item, and those are not worth remembering."""


class Prefixes:
    """The PromptPrefix records of a run."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._there: OrderedDict[str, asyncio.Task[pb.Record]] = OrderedDict()

    async def ensure(self, prefix_id: str, text: str) -> None:
        """Wait until the prefix is in the store and a member of the run's collection."""
        task = self._there.get(prefix_id)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            record = pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=text))
            task = self._there[prefix_id] = asyncio.create_task(self._store.append(record))
            if len(self._there) > _REMEMBERED:
                self._there.popitem(last=False)
        await asyncio.shield(task)
