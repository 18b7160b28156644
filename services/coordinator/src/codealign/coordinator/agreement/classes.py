"""Classes of attempts that agree with each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from codealign.coordinator.agreement.inputs import Input
from codealign.coordinator.agreement.outcomes import Outcome, Outcomes

PLURALITY = 0.5
"""Share of the attempts observed at an input that must agree there, so that a varied input counts."""
_FEW = 2
"""Attempts of which no share says anything: with two, any disagreement counts."""


def counted(inputs: Sequence[Input], outcomes: Sequence[Outcomes], plurality: float = PLURALITY) -> tuple[int, ...]:
    """Return the numbers of the inputs at which attempts are compared.

    An input of some attempt's tests always counts. A varied input may be one for which the instruction leaves open what
    happens: then attempts that are all right do different things (of `factorial(-1)`, one returns 1, one raises a
    ValueError, one never ends). So it counts only if, of three or more attempts observed there, the share
    `plurality` agrees.

    Args:
        inputs: All inputs.
        outcomes: Of each attempt at each input.
        plurality: The share.
    """
    found = []
    for number, each in enumerate(inputs):
        keys = Counter(own[number].key for own in outcomes if own[number].counts)
        if each.claimed or keys.total() <= _FEW or max(keys.values()) >= plurality * keys.total():
            found.append(number)
    return tuple(found)


def agreeing(outcomes: Sequence[Outcomes], numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the classes of attempts that agree with each other at all inputs where they were observed.

    What was not observed is compatible with anything. Therefore agreement is not transitive: attempts A and C that
    contradict each other may both be compatible with B. A class never has both: it stands for one function, which is
    known where any of its members was observed, and no member contradicts it. Attempts are placed in the order of the
    number of inputs at which they were observed, then of their own numbers. Each joins the class with which it agrees
    at most inputs (at one at least) and contradicts at none; of equal ones the largest, then the one with the lowest
    attempt. If there is none, it begins a class. An attempt that was observed nowhere is in no class.

    Args:
        outcomes: Of each attempt at each input.
        numbers: The inputs that count.
    """
    observed = [[number for number in numbers if own[number].counts] for own in outcomes]
    classes: list[tuple[list[int], dict[int, Outcome]]] = []
    for attempt in sorted(range(len(outcomes)), key=lambda each: (-len(observed[each]), each)):
        own = {number: outcomes[attempt][number] for number in observed[attempt]}
        if not own:
            continue
        place = _fitting(own, classes)
        if place is not None:
            members, known = classes[place]
            members.append(attempt)
            known.update({**own, **known})
        else:
            classes.append(([attempt], own))
    return [tuple(sorted(members)) for members, _ in classes]


def joined(
    found: Sequence[tuple[int, ...]], attempt: int, outcomes: Sequence[Outcomes], numbers: Sequence[int]
) -> list[tuple[int, ...]]:
    """Return classes with one attempt more, placed by `agreeing`'s rules.

    It begins a class only if it contradicts every other one. Otherwise, if it agrees with none, nothing shows that it
    does something else, and it is in no class.

    Args:
        found: Classes without the attempt.
        attempt: The attempt.
        outcomes: By which it is placed: of each attempt at each input. Members of a class may contradict each other.
        numbers: The inputs that count.
    """
    own = {number: outcomes[attempt][number] for number in numbers if outcomes[attempt][number].counts}
    fitting = [
        (place, {number: there for member in members for number in own if (there := outcomes[member][number]).counts})
        for place, members in enumerate(found)
        if not any(own[number].contradicts(outcomes[member][number]) for member in members for number in own)
    ]
    best = _fitting(own, [(list(found[place]), known) for place, known in fitting])
    if best is None:
        return list(found) if fitting else [*found, (attempt,)]
    joins = fitting[best][0]
    return [tuple(sorted((*members, attempt))) if place == joins else members for place, members in enumerate(found)]


def _fitting(own: Mapping[int, Outcome], classes: Sequence[tuple[Sequence[int], Mapping[int, Outcome]]]) -> int | None:
    """Return the place of the class that an attempt joins, or None if it agrees with none."""
    found = [
        (sum(1 for number in own if number in known), len(members), -min(members), place)
        for place, (members, known) in enumerate(classes)
        if not any(number in known and known[number].contradicts(own[number]) for number in own)
    ]
    best = max(found, default=(0,))
    return best[-1] if best[0] else None
