"""The queue: one for each caller, served in turn, so that nobody waits behind another's thousands."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)


class FairQueue(Generic[ItemT]):
    """Round robin over callers, each with a first-in-first-out queue of its own.

    Every operation takes constant time but those that look at all callers, which say so.
    """

    def __init__(self) -> None:
        # Callers in the order of their turns. One without anything waiting is not in it.
        self._callers: collections.OrderedDict[str, collections.OrderedDict[ItemT, None]] = collections.OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, caller: str, item: ItemT) -> None:
        """Adds an item behind its caller's others."""
        self._callers.setdefault(caller, collections.OrderedDict())[item] = None
        self._size += 1

    def put_back(self, caller: str, item: ItemT) -> None:
        """Returns an item that was taken out: it is the next one again."""
        self.put(caller, item)
        self._callers[caller].move_to_end(item, last=False)
        self._callers.move_to_end(caller, last=False)

    def pop(self) -> ItemT:
        """Takes the first item of the caller whose turn it is.

        Raises:
            KeyError: Nothing waits.
        """
        caller = next(iter(self._callers), "")
        item, _ = self._callers[caller].popitem(last=False)
        self._callers.move_to_end(caller)
        self._gone(caller)
        return item

    def remove(self, caller: str, item: ItemT) -> bool:
        """Takes an item out of the middle; False when it does not wait here."""
        own = self._callers.get(caller)
        if own is None or item not in own:
            return False
        del own[item]
        self._gone(caller)
        return True

    def push_out(self, caller: str) -> ItemT | None:
        """Takes the newest item of whoever has the most, to make room for one more of `caller`'s.

        Looks at all callers.

        Returns:
            The item, or None where `caller` would then have as many as anyone: it is the one to be refused.
        """
        longest = max(self._callers, key=lambda name: len(self._callers[name]), default=caller)
        if longest == caller or len(self._callers[longest]) <= self.waiting_of(caller) + 1:
            return None
        item, _ = self._callers[longest].popitem()
        self._gone(longest)
        return item

    def waiting_of(self, caller: str) -> int:
        """How many of a caller's wait."""
        return len(self._callers.get(caller, ()))

    def ahead_of(self, caller: str) -> int:
        """How many are served before one more of `caller`'s would be, at least. Looks at all callers."""
        own = self.waiting_of(caller)
        return sum(min(len(items), own) for items in self._callers.values())

    def drain(self) -> Iterator[ItemT]:
        """Takes everything out, in the order in which it would have been served."""
        while self._size:
            yield self.pop()

    def _gone(self, caller: str) -> None:
        self._size -= 1
        if not self._callers[caller]:
            del self._callers[caller]
