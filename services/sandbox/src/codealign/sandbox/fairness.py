"""Fair queue: one per caller, served in turn, so that nobody waits behind another caller's thousands of jobs."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)


class FairQueue(Generic[ItemT]):
    """Round robin over callers, each with a first-in-first-out queue.

    Operations take constant time except those documented to look at all callers.
    """

    def __init__(self) -> None:
        # Callers in the order of their turns. Callers without waiting items are removed.
        self._callers: collections.OrderedDict[str, collections.OrderedDict[ItemT, None]] = collections.OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, caller: str, item: ItemT) -> None:
        """Append an item to its caller's queue."""
        self._callers.setdefault(caller, collections.OrderedDict())[item] = None
        self._size += 1

    def put_back(self, caller: str, item: ItemT) -> None:
        """Return an item that was taken out, so that it is the next one again."""
        self.put(caller, item)
        self._callers[caller].move_to_end(item, last=False)
        self._callers.move_to_end(caller, last=False)

    def pop(self) -> ItemT:
        """Take the first item of the caller whose turn it is.

        Raises:
            KeyError: The queue is empty.
        """
        caller = next(iter(self._callers), "")
        item, _ = self._callers[caller].popitem(last=False)
        self._callers.move_to_end(caller)
        self._gone(caller)
        return item

    def remove(self, caller: str, item: ItemT) -> bool:
        """Remove an item from anywhere in the queue. Return False if it is not in the queue."""
        own = self._callers.get(caller)
        if own is None or item not in own:
            return False
        del own[item]
        self._gone(caller)
        return True

    def push_out(self, caller: str) -> ItemT | None:
        """Remove the newest item of the caller with the most items, to make room for one more of `caller`'s.

        Looks at all callers.

        Returns:
            The item, or None if `caller` would then have as many as anyone; it is the one to refuse.
        """
        longest = max(self._callers, key=lambda name: len(self._callers[name]), default=caller)
        if longest == caller or len(self._callers[longest]) <= self.waiting_of(caller) + 1:
            return None
        item, _ = self._callers[longest].popitem()
        self._gone(longest)
        return item

    def waiting_of(self, caller: str) -> int:
        """Return the number of a caller's waiting items."""
        return len(self._callers.get(caller, ()))

    def ahead_of(self, caller: str) -> int:
        """Return the minimum number of items served before another one of `caller`'s. Looks at all callers."""
        own = self.waiting_of(caller)
        return sum(min(len(items), own) for items in self._callers.values())

    def heads(self) -> Iterator[ItemT]:
        """Yield the first item of each caller. Looks at all callers."""
        return (next(iter(items)) for items in self._callers.values())

    def drain(self) -> Iterator[ItemT]:
        """Remove and yield all items in the order in which they would have been served."""
        while self._size:
            yield self.pop()

    def _gone(self, caller: str) -> None:
        self._size -= 1
        if not self._callers[caller]:
            del self._callers[caller]
