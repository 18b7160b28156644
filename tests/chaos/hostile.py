"""Programs of the hostile corpus that end within about a second, according to their headers."""

from __future__ import annotations

from tests.chaos.load import Item
from tests.hostile import corpus
from tests.hostile.corpus import Case

_MIB = 2**20
_SECONDS = 1.0
_SIZE = 64 * 1024
_SMALL = {
    "OUT_OF_MEMORY": ("memory_bytes", 128 * _MIB),
    "DISK_LIMIT": ("disk_bytes", 8 * _MIB),
    "OUTPUT_LIMIT": ("output_kill_bytes", 2 * _MIB),
}
"""Verdicts whose programs need a small limit of their own to end soon."""


def _is_quick(case: Case) -> bool:
    limits = case.limits
    if "TIMED_OUT" in case.verdicts:
        return min(limits.get("wall_seconds", _SECONDS + 1), limits.get("cpu_seconds", _SECONDS + 1)) <= _SECONDS
    small = [_SMALL[verdict] for verdict in case.verdicts if verdict in _SMALL]
    return all(limits.get(name, most + 1) <= most for name, most in small)


def quick() -> list[Item]:
    """Return programs that run alone and once, with a definite verdict."""
    cases = corpus.load()
    companions = {name for case in cases for name in (case.after, case.beside)}
    return [
        Item(case.request(case.name), case.verdicts, name=case.name)
        for case in cases
        if case.name not in companions
        and case.category != "ordinary"
        and not (case.after or case.beside or case.open or case.runs)
        and len(case.code) + len(case.tests) <= _SIZE
        and _is_quick(case)
    ]
