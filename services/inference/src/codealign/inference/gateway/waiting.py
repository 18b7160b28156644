"""Samples of one model that wait: callers take turns, and within a caller those go first whose worker has room."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Collection, Iterator

from codealign.inference.gateway.work import Draw, Job

_LOOK_AHEAD = 64
"""Prefix groups of a caller that are looked at for one sample, so that a choice takes bounded time."""

Groups = collections.OrderedDict[str, collections.OrderedDict[Draw, None]]


class Waiting:
    """Round robin over callers. A caller's samples are grouped by prefix, each group first in, first out."""

    def __init__(self) -> None:
        # In the order of turns. Callers and groups without samples are removed.
        self._callers: collections.OrderedDict[str, Groups] = collections.OrderedDict()
        # Samples that came back from a worker. They waited longest, so they go before all others.
        self._returned: collections.OrderedDict[Draw, None] = collections.OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size + len(self._returned)

    @property
    def has_new(self) -> bool:
        """Whether samples wait that were never at a worker."""
        return self._size > 0

    @property
    def returned(self) -> list[Draw]:
        """Samples that came back from a worker, the first to be served first."""
        return list(self._returned)

    def put(self, draw: Draw) -> None:
        """Add a sample."""
        groups = self._callers.setdefault(draw.job.caller, collections.OrderedDict())
        groups.setdefault(draw.job.prefix_key, collections.OrderedDict())[draw] = None
        self._size += 1

    def put_back(self, draw: Draw) -> None:
        """Add a sample that a worker did not answer."""
        self._returned[draw] = None

    def pick(self, prefers: Callable[[str], bool]) -> Draw:
        """Take a sample of the caller whose turn it is.

        Args:
            prefers: Whether the worker of a prefix group has room. Among those samples the oldest is taken, or the
                caller's oldest if there is none.

        Raises:
            StopIteration: `has_new` is false.
        """
        caller, groups = next(iter(self._callers.items()))
        oldest = preferred = ""
        oldest_at = preferred_at = float("inf")
        for prefix, draws in itertools.islice(groups.items(), _LOOK_AHEAD):
            at = next(iter(draws)).waiting_since
            if at < oldest_at:
                oldest, oldest_at = prefix, at
            if at < preferred_at and prefers(prefix):
                preferred, preferred_at = prefix, at
        chosen = preferred if preferred_at < float("inf") else oldest
        draw = next(iter(groups[chosen]))
        self._take(draw)
        if chosen in groups:
            groups.move_to_end(chosen)  # so that every group gets into the part that is looked at
        if caller in self._callers:
            self._callers.move_to_end(caller)
        return draw

    def remove(self, draw: Draw) -> None:
        """Remove a sample, if it waits."""
        if draw in self._returned:
            del self._returned[draw]
            return
        groups = self._callers.get(draw.job.caller)
        if groups is not None and draw in groups.get(draw.job.prefix_key, ()):
            self._take(draw)

    def push_out(self, caller: str, samples: int, chosen: Collection[Job] = ()) -> Job | None:
        """Return the job to drop so that `caller` can add samples: the newest of whoever has the most waiting.

        Jobs of which a sample is answered or at a worker are not dropped, since that work would be lost.

        Args:
            caller: Who adds samples.
            samples: How many.
            chosen: Jobs that were returned before and are to be dropped as well.

        Returns:
            The job, or None if `caller` would then have as many as anyone, or nothing can be dropped.
        """
        counts = collections.Counter({name: sum(map(len, groups.values())) for name, groups in self._callers.items()})
        for job in chosen:
            counts[job.caller] -= len(job.draws)
        longest = max(counts, key=lambda name: counts[name], default=caller)
        if longest == caller or counts[longest] <= counts.get(caller, 0) + samples:
            return None
        newest = (
            next((draw for draw in reversed(draws) if draw.job not in chosen), None)
            for draws in self._callers[longest].values()
        )
        heads = [draw for draw in newest if draw is not None]
        for draw in sorted(heads, key=lambda draw: draw.waiting_since, reverse=True):
            waiting = self._callers[longest][draw.job.prefix_key]
            if not draw.job.calls and all(other in waiting for other in draw.job.draws.values()):
                return draw.job
        return None

    def oldest(self) -> float | None:
        """Return since when the sample that waits longest has waited, or None. Looks at all groups."""
        heads = (next(iter(draws)).waiting_since for groups in self._callers.values() for draws in groups.values())
        returned = (draw.waiting_since for draw in self._returned)
        return min(itertools.chain(heads, returned), default=None)

    def jobs(self) -> list[Job]:
        """Return the jobs of all waiting samples."""
        return list(dict.fromkeys(draw.job for draw in self._all()))

    def _all(self) -> Iterator[Draw]:
        yield from self._returned
        for groups in self._callers.values():
            for draws in groups.values():
                yield from draws

    def _take(self, draw: Draw) -> None:
        groups = self._callers[draw.job.caller]
        draws = groups[draw.job.prefix_key]
        del draws[draw]
        self._size -= 1
        if not draws:
            del groups[draw.job.prefix_key]
        if not groups:
            del self._callers[draw.job.caller]
