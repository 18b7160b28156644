"""What an answer's text says about other processes."""

from __future__ import annotations

import pytest

from codealign.coordinator.agreement.calls import Arguments
from codealign.coordinator.agreement.steadiness import Steadiness, has_sets, of_code


@pytest.mark.parametrize(
    "body",
    [
        "return sorted(set(words))",
        "return len(set(words)) + len({word.lower() for word in words})",
        "return ''.join(sorted({*words}))",
        "return max(set(words))",
        "return [word for word in words if word not in {'a', 'b'}]",
        "seen = set()\n    out = []\n    for word in words:\n        if word not in seen:\n            seen.add(word)\n"
        "            out.append(word)\n    return out",
        "seen: set[str] = set()\n    seen |= set(words)\n    return len(seen) if seen else 0",
        "return sorted(set(words) & set('abc') | {'d'})",
        "return set(words).union({'a'}).issuperset(set('ab'))",
        "return all(word in 'ab' for word in set(words))",
        "return isinstance(words, (set, frozenset))",
        "return {word: 1 for word in words}",
        "return words == {'a', 'b'}",
        "both = set(words) if words else {'a'}\n    return sum(len(word) for word in both)",
    ],
)
def test_the_order_of_these_sets_does_not_show(body: str) -> None:
    assert of_code(f"def f(words):\n    {body}\n") == Steadiness.STEADY


@pytest.mark.parametrize(
    "body",
    [
        "return set(words)",
        "return {word for word in words if word} | set('ab')",
        "found = set(words)\n    found.discard('a')\n    return found",
    ],
)
def test_sets_that_are_returned_may_be_iterated_over_elsewhere(body: str) -> None:
    assert of_code(f"def f(words):\n    {body}\n") == Steadiness.SETS


@pytest.mark.parametrize(
    "body",
    [
        "return list(set(words))",
        "return ' '.join({*words})",
        "return max(set(words), key=words.count)",
        "return sorted(set(words), key=len)",
        "return [*set(words)]",
        "return [word for word in set(words)]",
        "for word in {'a', 'b'}:\n        return word",
        "seen = set(words)\n    other = seen\n    return list(other)",
        "return str(set(words))",
        "return f'{set(words)}'",
        "return set(words).pop()",
        "return list(words.keys() & {'a'})",
        "return list(words.keys() - words.keys())",
        "if (found := set(words)):\n        return next(iter(found))",
        "return list(map(set, words))",
        "found = (word for word in set(words))\n    return next(found)",
        "return [word for word in set(words)] == words",
        "found = collections.Counter()\n    found.update(set(words))\n    return found.most_common(1)",
        "from datetime import datetime\n    return datetime.fromtimestamp(0).hour",
        "return hash(words) % 7",
        "return id(words) > 5",
        "from datetime import date\n    return date.today().year",
        "import random\n    return random.random() < 0.5",
        "import time\n    return time.time()",
        "import numpy as np\n    return np.random.default_rng().integers(2)",
        "return open(words).read()",
        "return (",
    ],
)
def test_what_may_be_another_value_in_another_process_varies(body: str) -> None:
    assert of_code(f"def f(words):\n    {body}\n") == Steadiness.VARIES


def test_sets_in_attributes_and_views_are_followed() -> None:
    code = "class Bag:\n    def __init__(self, words):\n        self.words = set(words)\n    def size(self):\n"
    assert of_code(f"{code}        return len(self.words)\n", "_.size()") == Steadiness.STEADY
    assert of_code(f"{code}        return list(self.words)\n", "_.size()") == Steadiness.VARIES
    assert of_code(f"{code}        return 1\n", "list(_.words)") == Steadiness.VARIES


def test_only_numbers_have_the_same_order_everywhere() -> None:
    assert has_sets(Arguments(("[{'a', 'b'}]",)))
    assert has_sets(Arguments((), (("x", "frozenset({(1, 'a')})"),)))
    assert not has_sets(Arguments(("{1, -2, 0.5}", "{'a': 1}", "'{'")))
