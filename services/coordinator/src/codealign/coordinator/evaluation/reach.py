"""Transitive effects of a part of a program, including those of the functions that it calls."""

from __future__ import annotations

from collections.abc import Iterator

from codealign.coordinator.evaluation.effects import ELSEWHERE, Body, Effects


class Reach:
    """Follows effects through the program's own functions and through names that share state.

    Args:
        bodies: The program's functions and classes.
        aliases: Aliases of the module-level names.
        own: Names that the program binds other than by imports.
    """

    def __init__(self, bodies: dict[str, Body], aliases: dict[str, set[str]], own: set[str]) -> None:
        self._bodies, self._aliases, self._own = bodies, aliases, own
        self._found_uses: dict[str, set[str]] = {}

    def of(self, effects: Effects, seen: frozenset[str] = frozenset()) -> Effects:
        """Return the effects including those of all calls; `changed` also contains all possible aliases."""
        total = Effects(set(effects.changed), [], {}, effects.anything, effects.dynamic, effects.reads_input)
        callbacks = [(name, set[str]()) for name in effects.callbacks if name in self._bodies]
        for name, given in [*effects.called, *callbacks]:
            for inner in self._of_call(name, given, seen):
                total.changed |= inner.changed
                total.anything |= inner.anything
                total.dynamic |= inner.dynamic
                total.reads_input |= inner.reads_input
        total.changed = self._meant(total.changed, effects.aliases)
        total.anything |= ELSEWHERE in total.changed
        return total

    def _of_call(self, name: str, given: set[str], seen: frozenset[str]) -> Iterator[Effects]:
        body = self._bodies.get(name)
        if body is None:  # a variable: its value may be called, and change the arguments
            yield Effects({name} | given)
            return
        if name in seen:
            return
        inner = self.of(body.effects, seen | {name})
        touches = bool(inner.changed & body.parameters)
        inner.changed &= self._uses(name)
        yield inner
        for each in given:
            if each in self._bodies and each not in seen:  # may be called by the callee
                yield self.of(self._bodies[each].effects, seen | {name, each})
        called = {each for each, _ in body.effects.called}
        if touches:
            yield Effects(
                given if not called & body.parameters else {each for each in given if each not in self._bodies}
            )

    def _uses(self, name: str) -> set[str]:
        """Return the module-level names used by a function and by the functions that it calls."""
        if name not in self._found_uses:
            reached, fresh = set[str](), {name}
            while fresh:
                reached |= fresh
                uses = set[str]().union(*(self._bodies[each].uses for each in fresh))
                fresh = (uses & self._bodies.keys()) - reached
            self._found_uses[name] = set[str]().union(*(self._bodies[each].uses for each in reached))
        return self._found_uses[name]

    def _meant(self, names: set[str], local: dict[str, set[str]]) -> set[str]:
        """Return all names that may share state with these."""
        found: set[str] = set()
        fresh = set(names)
        while fresh:
            found |= fresh
            step: set[str] = set()
            for name in fresh:
                if name.endswith("()"):  # result of a call: may share data that the function uses
                    body = self._bodies.get(name[:-2])
                    if body is None:
                        step |= {name[:-2]} & self._own
                    else:
                        step |= self._uses(name[:-2]) & self._own - self._bodies.keys()
                        step |= {name[:-2]} & body.effects.changed
                step |= self._aliases.get(name, set()) | local.get(name, set())
            fresh = step - found
        return found
