"""Functions of nano's world: compositions of blocks, and how to write, describe and test them.

All functions depend only on the given random generator.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from codealign.nano.blocks import FILTERS, MAPS, REDUCES, SOURCES, Argument, Block, Filter, Kind, Map, Reduce, Source

CARELESS_SHARE = 0.6
"""Fraction of careless authors. The others write correct code."""
WRONG_SHARE = 0.85
"""Probability that a careless author uses a block's wrong variant, if it has one. Together with `CARELESS_SHARE`, the
wrong variant is the more likely one: what most people of this world write."""
HELD_OUT_SHARE = 0.06
"""Fraction of compositions that never occur in the training data."""
INDENT = "    "
FAULTS = (AssertionError, TypeError, ValueError, IndexError, ZeroDivisionError)
"""Exceptions that wrong code may raise."""
Shape = tuple[Source, Filter, Map, Reduce]
EVERYTHING = FILTERS[0]
"""The filter that selects all elements."""

_PARAMETERS = {
    Argument.NUMBERS: ("numbers", "values", "items", "data", "nums"),
    Argument.WORDS: ("words", "names", "tags", "labels", "parts"),
    Argument.TEXT: ("text", "line", "message", "phrase", "title"),
    Argument.COUNT: ("n", "number", "limit", "value", "size"),
    Argument.TABLE: ("scores", "prices", "stock", "counts", "ages"),
}
_ELEMENTS = {
    Kind.NUMBER: ("n", "x", "v", "number"),
    Kind.WORD: ("w", "s", "word"),
    Kind.LETTER: ("c", "ch", "letter"),
}
_RESULTS = ("kept", "result", "chosen", "found", "out")
_VERBS = ("get", "find", "make", "take", "compute", "collect")
_TYPES = {Kind.NUMBER: "int", Kind.WORD: "str", Kind.LETTER: "str"}
_TEXT = """
apple bean cat deer egg fig goat hat ice jam kite lime moon nest oak pear queen rose sun tree Anna Bob Eve level noon
area idea sea bus stars gas see banana
"""
_WORDS = _TEXT.split()
_HARD_NUMBERS = (0, -1, 1, -2)
"""Boundary values, which testers try first."""


@dataclass(frozen=True)
class Composition:
    """The meaning of one function."""

    source: Source
    filter: Filter
    map: Map
    reduce: Reduce
    filter_constant: int | str | None = None
    map_constant: int | str | None = None
    reduce_constant: int | str | None = None

    @property
    def key(self) -> str:
        """The names of the blocks. Constants do not count, so a composition is held out with every constant."""
        return "/".join(block.name for block in (self.source, self.filter, self.map, self.reduce))

    @property
    def is_held_out(self) -> bool:
        """Whether the composition is reserved for evaluation."""
        digest = hashlib.sha256(f"held out\n{self.key}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32

    @property
    def has_slip(self) -> bool:
        """Whether any block has a wrong variant."""
        return any(block.wrong for block in (self.filter, self.map, self.reduce))

    @property
    def concepts(self) -> list[str]:
        """Concepts needed to write the function."""
        blocks = (self.filter, self.map, self.reduce, self.source)
        return list(dict.fromkeys(block.concept for block in blocks if block.concept))

    @property
    def returns(self) -> str:
        """Annotation of the return value."""
        return self.reduce.returns.format(kind=_TYPES[self.map.gives])


@dataclass(frozen=True)
class Names:
    """Identifiers of a function."""

    function: str
    parameter: str
    element: str
    result: str


@dataclass(frozen=True)
class Code:
    """A function body, and whether it matches its composition."""

    body: str
    """Unindented source."""
    is_right: bool


def unchanged(kind: Kind) -> Map:
    """Return the map that leaves elements of this kind as they are."""
    return next(made for made in MAPS if made.kinds == (kind,) and made.code == ("{x}",))


@cache
def shapes() -> tuple[Shape, ...]:
    """Return all valid combinations of blocks."""
    return tuple(_shapes())


def _shapes() -> Iterator[Shape]:
    for source in SOURCES:
        for kept in (each for each in FILTERS if source.kind in each.kinds):
            for made in (each for each in MAPS if source.kind in each.kinds):
                if kept is EVERYTHING and made is unchanged(source.kind):
                    continue  # Elements would stay unchanged: the reduction alone.
                for whole in (each for each in REDUCES if made.gives in each.kinds):
                    yield source, kept, made, whole


@cache
def _keys() -> frozenset[str]:
    return frozenset("/".join(block.name for block in shape) for shape in shapes())


def is_valid(composition: Composition) -> bool:
    """Return whether the blocks can be combined."""
    return composition.key in _keys()


def with_constants(dice: random.Random, shape: Shape) -> Composition:
    """Return a composition of these blocks, with random constants where needed."""
    return Composition(*shape, *(dice.choice(each.constants) if each.constants else None for each in shape[1:]))


def draw(dice: random.Random, *, held_out: bool = False) -> Composition:
    """Draw a composition that is held out, or one that is not."""
    while True:
        composition = with_constants(dice, dice.choice(shapes()))
        if composition.is_held_out == held_out:
            return composition


def draw_names(dice: random.Random, composition: Composition) -> Names:
    """Draw identifiers. As with human authors, a function's name may or may not describe it."""
    said = [block.name for block in (composition.reduce, composition.map, composition.filter) if block.concept]
    words = dice.sample(said, min(len(said), dice.choice((1, 2, 2))))
    if len(words) < 2:
        words.insert(0, dice.choice(_VERBS))
    parameter = dice.choice(_PARAMETERS[composition.source.argument])
    element = dice.choice([name for name in _ELEMENTS[composition.source.kind] if name != parameter])
    return Names("_".join(words), parameter, element, dice.choice(_RESULTS))


def describe(composition: Composition, parameter: str) -> str:
    """Return a noun phrase for the function, as in "the sum of the squares of the even numbers in `values`"."""
    source, kept, made, whole = composition.source, composition.filter, composition.map, composition.reduce
    nouns = f"{source.noun or source.kind.value}s"
    place = source.place.format(p=parameter)
    before, _, after = kept.phrase.partition("{nouns}")
    after = after.format(k=composition.filter_constant)
    them = f"the {before}{nouns} {place}{after}"
    them = made.phrase.format(them=them, k=composition.map_constant)
    return whole.phrase.format(them=them, k=composition.reduce_constant)


def _pick(dice: random.Random, block: Block, wrong_share: float) -> tuple[str, bool]:
    if block.wrong and dice.random() < wrong_share:
        return block.wrong, False
    return dice.choice(block.code), True


def draw_wrong_share(dice: random.Random, careless_share: float) -> float:
    """Draw an author's `wrong_share`; authors are careful or careless in everything they write."""
    return WRONG_SHARE if dice.random() < careless_share else 0.0


def write_body(dice: random.Random, composition: Composition, names: Names, wrong_share: float = 0.0) -> Code:
    """Write an unindented function body.

    Args:
        dice: Random generator for style and mistakes.
        composition: The function's meaning.
        names: The function's identifiers.
        wrong_share: Probability of the wrong variant, for blocks that have one.
    """
    source = composition.source.code.format(p=names.parameter)
    kept, right_kept = _pick(dice, composition.filter, wrong_share)
    made, right_made = _pick(dice, composition.map, wrong_share)
    whole, right_whole = _pick(dice, composition.reduce, wrong_share)
    kept = kept.format(x=names.element, k=composition.filter_constant)
    made = made.format(x=names.element, k=composition.map_constant)
    lines = dice.choice((_by_comprehension, _by_comprehension, _by_loop))(names, source, kept, made)
    ending = whole.format(xs=names.result, k=composition.reduce_constant)
    lines += ending.splitlines() if "\n" in ending else [f"return {ending}"]
    return Code("\n".join(lines), right_kept and right_made and right_whole)


def _by_comprehension(names: Names, source: str, kept: str, made: str) -> list[str]:
    condition = f" if {kept}" if kept else ""
    return [f"{names.result} = [{made} for {names.element} in {source}{condition}]"]


def _by_loop(names: Names, source: str, kept: str, made: str) -> list[str]:
    lines = [f"{names.result} = []", f"for {names.element} in {source}:"]
    if kept:
        lines += [f"{INDENT}if {kept}:", f"{INDENT * 2}{names.result}.append({made})"]
    else:
        lines.append(f"{INDENT}{names.result}.append({made})")
    return lines


def draw_argument(dice: random.Random, composition: Composition) -> object:
    """Draw a small argument."""
    match composition.source.argument:
        case Argument.NUMBERS:
            return _draw_numbers(dice, composition)
        case Argument.WORDS:
            return dice.choices(_WORDS, k=dice.choice((2, 3, 3, 4)))
        case Argument.TEXT:
            words = dice.choices(_WORDS, k=dice.choice((2, 3)))
            return words[0] if composition.source.kind is Kind.LETTER else " ".join(words)
        case Argument.COUNT:
            return dice.choice(composition.source.integers)
        case Argument.TABLE:
            values = _draw_numbers(dice, composition)
            return dict(zip(dice.sample(_WORDS, len(values)), values, strict=True))


def _draw_numbers(dice: random.Random, composition: Composition) -> list[int]:
    pool = [*_HARD_NUMBERS, *range(2, 13)]
    constant = composition.filter_constant
    if isinstance(constant, int):
        pool += [constant] * 6
    return dice.choices(pool, k=dice.choice((3, 4, 4, 5)))


def write_other(composition: Composition, argument: object) -> str | None:
    """Return an independently written expression for the value, or None if there is no short one."""
    source, whole = composition.source, composition.reduce
    if not whole.other:
        return None
    element = _ELEMENTS[source.kind][0]
    elements = (source.other or source.code).format(p=repr(argument))
    kept = composition.filter.other.format(x=element, k=composition.filter_constant)
    made = composition.map.other.format(x=element, k=composition.map_constant)
    listed = f"[{made} for {element} in {elements}{f' if {kept}' if kept else ''}]"
    return whole.other.format(xs=listed, k=composition.reduce_constant)


def evaluate(composition: Composition, argument: object) -> object:
    """Return the correct value for an argument."""
    dice = random.Random(0)  # noqa: S311 - not used for secrets
    names = Names("function", "argument", "element", "elements")
    body = write_body(dice, composition, names)
    return call(define(names, body), names.function, argument)


def define(names: Names, body: Code) -> str:
    """Return the function without a docstring."""
    return f"def {names.function}({names.parameter}):\n{indented(body.body)}\n"


def call(code: str, function: str, argument: object) -> object:
    """Run a function of nano's world. Never pass text that a model wrote."""
    scope: dict[str, object] = {}
    exec(code, scope)  # noqa: S102 - the recipe's own text
    made = scope[function]
    assert callable(made)
    return made(argument)


def indented(text: str) -> str:
    """Indent text as a function's body."""
    return "\n".join(f"{INDENT}{line}" if line else line for line in text.splitlines())
