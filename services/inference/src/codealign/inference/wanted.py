"""Which models are to be served: a map that gateways and workers merge until all have the same.

Every entry has a version, and the higher version wins, so the order of merging does not matter and merging twice is
merging once (a last-writer-wins map). Docs: docs/decisions/021-gateway-and-workers.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.inference.v1 import inference_pb2 as pb

FOUND = 1
"""Version of an entry that nobody asked for: the model was found at a worker, or is in a gateway's settings."""
_KEEP_REMOVED_MS = 7 * 24 * 3600 * 1000


class WantedModels:
    """Entries by model name.

    Attributes:
        changes: Number of changes so far.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._entries: dict[str, pb.WantedModel] = {}

    @property
    def entries(self) -> list[pb.WantedModel]:
        """All entries, those of removed models included."""
        return list(self._entries.values())

    @property
    def wanted(self) -> list[pb.WantedModel]:
        """The models to serve, the longest wanted first."""
        return sorted(
            (entry for entry in self._entries.values() if not entry.removed),
            key=lambda entry: (entry.version, entry.name),
        )

    def get(self, name: str) -> pb.WantedModel | None:
        """Return the entry of a model, which may be a removed one."""
        return self._entries.get(name)

    def merge(self, entries: Iterable[pb.WantedModel], now_ms: int) -> None:
        """Take over the entries that win over those here, and forget removed models after a week."""
        for entry in entries:
            there = self._entries.get(entry.name)
            if there is None or _rank(entry) > _rank(there):
                self._set(entry)
        forgotten = [
            name for name, entry in self._entries.items() if entry.removed and entry.version < now_ms - _KEEP_REMOVED_MS
        ]
        for name in forgotten:
            del self._entries[name]

    def find(self, name: str, source: str, revision: str) -> None:
        """Record a model that nobody asked for, unless there is an entry already."""
        if name not in self._entries:
            self._set(pb.WantedModel(name=name, source=source, revision=revision, version=FOUND))

    def record(self, name: str, source: str, revision: str, *, pinned: bool, now_ms: int) -> None:
        """Record that a model is to be served."""
        entry = pb.WantedModel(name=name, source=source, revision=revision, pinned=pinned)
        self._put(entry, now_ms)

    def remove(self, name: str, now_ms: int) -> None:
        """Record that a model is not to be served."""
        self._put(pb.WantedModel(name=name, removed=True), now_ms)

    def agree(self, name: str, revision: str) -> None:
        """Record which revision the workers have. What a caller asks for at the same time wins over it."""
        there = self._entries[name]
        version = there.version + 1
        self._set(pb.WantedModel(name=name, source=there.source, revision=revision, version=version))

    def _put(self, entry: pb.WantedModel, now_ms: int) -> None:
        there = self._entries.get(entry.name)
        entry.version = max(now_ms, there.version + 1 if there else 0)
        self._set(entry)

    def _set(self, entry: pb.WantedModel) -> None:
        self._entries[entry.name] = entry
        self.changes += 1


def _rank(entry: pb.WantedModel) -> tuple[int, bool, bool, str, str]:
    return entry.version, entry.removed, entry.pinned, entry.revision, entry.source
