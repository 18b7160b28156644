"""The blocks of nano's artificial world: sources, filters, maps and reductions of elements.

Each block has correct code variants, an independently written one for tests to compare with, and a description. Some
also have a wrong variant, the mistake that people typically make with this block: this is the deliberate defect of
nano's pre-training data (see `functions.WRONG_SHARE`). In the texts, `{x}` is an element, `{xs}` a list of elements,
`{p}` the parameter and `{k}` a constant.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Kind(enum.Enum):
    """Kind of an element. The value is its noun."""

    NUMBER = "number"
    WORD = "word"
    LETTER = "letter"


NUMBER, WORD, LETTER = Kind
STRINGS = (WORD, LETTER)
ALL = (NUMBER, WORD, LETTER)


class Argument(enum.Enum):
    """Kind of a function's argument. The value is its annotation."""

    NUMBERS = "list[int]"
    WORDS = "list[str]"
    TEXT = "str"
    COUNT = "int"
    TABLE = "dict[str, int]"


@dataclass(frozen=True)
class Source:
    """A source of elements."""

    name: str
    kind: Kind
    argument: Argument
    place: str
    """Follows the noun, as in "in `{p}`"."""
    concept: str
    code: str
    other: str = ""
    """Independently written code. Empty: same as `code`."""
    noun: str = ""
    """Noun for an element. Empty: the kind's."""
    integers: Sequence[int] = (6, 8, 10, 12, 15, 20)
    """Arguments to test with, if the argument is an integer."""


@dataclass(frozen=True)
class Block:
    """What filters, maps and reductions have in common."""

    name: str
    kinds: tuple[Kind, ...]
    """Kinds of elements that the block accepts."""
    phrase: str
    concept: str
    code: tuple[str, ...]
    other: str = ""
    wrong: str = ""
    constants: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Filter(Block):
    """Selects elements.

    `phrase` surrounds the noun ("even {nouns}"), or continues after noun and place ("{nouns} that are even").
    """


@dataclass(frozen=True)
class Map(Block):
    """Transforms each element.

    `phrase` contains `{them}`, the selected elements: "the squares of {them}".
    """

    gives: Kind = field(kw_only=True)


@dataclass(frozen=True)
class Reduce(Block):
    """Reduces all elements to a result.

    `phrase` contains `{them}`: "the sum of {them}". `other` is empty if no single expression with one `{xs}` exists;
    tests then use a literal.
    """

    returns: str = field(kw_only=True)
    """Annotation of the result; `{kind}` is the elements' type."""


SOURCES = (
    Source("numbers", NUMBER, Argument.NUMBERS, "in `{p}`", "lists", "{p}"),
    Source("values", NUMBER, Argument.TABLE, "among the values of `{p}`", "dictionaries", "{p}.values()"),
    Source("digits", NUMBER, Argument.COUNT, "of `{p}`", "digits", "[int(d) for d in str({p})]",
           "map(int, str({p}))", "digit", range(10, 10_000)),
    Source("range", NUMBER, Argument.COUNT, "from 1 to `{p}`", "ranges", "range(1, {p} + 1)",
           "list(range({p} + 1))[1:]"),
    Source("divisors", NUMBER, Argument.COUNT, "of `{p}`", "divisors",
           "[d for d in range(1, {p} + 1) if {p} % d == 0]",
           "[d for d in range(1, {p} + 1) if not {p} % d]", "divisor"),
    Source("words", WORD, Argument.WORDS, "in `{p}`", "lists of strings", "{p}"),
    Source("split", WORD, Argument.TEXT, "in the text `{p}`", "splitting text", "{p}.split()"),
    Source("keys", WORD, Argument.TABLE, "among the keys of `{p}`", "dictionary keys", "{p}", "{p}.keys()"),
    Source("letters", LETTER, Argument.TEXT, "in the word `{p}`", "characters", "{p}", "list({p})"),
)  # fmt: skip

FILTERS = (
    Filter("all", ALL, "{nouns}", "", ("",), ""),
    Filter("even", (NUMBER,), "even {nouns}", "even numbers", ("{x} % 2 == 0",), "not {x} % 2"),
    Filter("odd", (NUMBER,), "odd {nouns}", "odd numbers", ("{x} % 2 == 1", "{x} % 2 != 0"), "{x} % 2"),
    Filter("positive", (NUMBER,), "positive {nouns}", "positive numbers", ("{x} > 0",), "0 < {x}", "{x} >= 0"),
    Filter("negative", (NUMBER,), "negative {nouns}", "negative numbers", ("{x} < 0",), "0 > {x}"),
    Filter("nonzero", (NUMBER,), "nonzero {nouns}", "nonzero numbers", ("{x} != 0",), "not {x} == 0"),
    Filter("multiple", (NUMBER,), "{nouns} that are multiples of {k}", "multiples", ("{x} % {k} == 0",),
           "not {x} % {k}", "{x} // {k} == 0", (3, 4, 5, 7)),
    Filter("no_multiple", (NUMBER,), "{nouns} that are not multiples of {k}", "divisibility", ("{x} % {k} != 0",),
           "{x} % {k}", "", (3, 4, 5)),
    Filter("greater", (NUMBER,), "{nouns} that are greater than {k}", "comparison", ("{x} > {k}",), "{k} < {x}",
           "{x} >= {k}", (2, 3, 4, 5)),
    Filter("less", (NUMBER,), "{nouns} that are less than {k}", "upper bounds", ("{x} < {k}",), "{k} > {x}",
           "{x} <= {k}", (3, 4, 5, 6)),
    Filter("at_least", (NUMBER,), "{nouns} that are at least {k}", "lower bounds", ("{x} >= {k}",), "not {x} < {k}",
           "{x} > {k}", (2, 3, 4, 5)),
    Filter("at_most", (NUMBER,), "{nouns} that are at most {k}", "limits", ("{x} <= {k}",), "not {x} > {k}",
           "{x} < {k}", (3, 4, 5, 6)),
    Filter("other_than", (NUMBER,), "{nouns} other than {k}", "inequality", ("{x} != {k}",), "not {x} == {k}", "",
           (1, 2, 3, 5)),
    Filter("one_digit", (NUMBER,), "{nouns} from 0 to 9", "one-digit numbers", ("0 <= {x} <= 9",), "{x} in range(10)",
           "0 < {x} < 9"),
    Filter("far_from_zero", (NUMBER,), "{nouns} whose absolute value is above {k}", "absolute value",
           ("abs({x}) > {k}",), "not -{k} <= {x} <= {k}", "{x} > {k}", (1, 2, 3)),
    Filter("ends_in", (NUMBER,), "{nouns} that end in {k}", "last digits", ("abs({x}) % 10 == {k}",),
           "str({x})[-1] == str({k})", "{x} // 10 == {k}", (1, 2, 5)),
    Filter("prime", (NUMBER,), "prime {nouns}", "prime numbers", ("{x} > 1 and all({x} % d for d in range(2, {x}))",),
           "sum({x} % d == 0 for d in range(1, {x} + 1)) == 2", "all({x} % d for d in range(2, {x}))"),
    Filter("longer", (WORD,), "{nouns} with more than {k} letters", "word length", ("len({x}) > {k}",),
           "{k} < len({x})", "len({x}) >= {k}", (2, 3, 4)),
    Filter("shorter", (WORD,), "{nouns} with fewer than {k} letters", "short words", ("len({x}) < {k}",),
           "{k} > len({x})", "len({x}) <= {k}", (3, 4, 5)),
    Filter("long_enough", (WORD,), "{nouns} with at least {k} letters", "minimum length", ("len({x}) >= {k}",),
           "not len({x}) < {k}", "len({x}) > {k}", (3, 4, 5)),
    Filter("short_enough", (WORD,), "{nouns} with at most {k} letters", "maximum length", ("len({x}) <= {k}",),
           "not len({x}) > {k}", "len({x}) < {k}", (3, 4, 5)),
    Filter("even_length", (WORD,), "{nouns} of even length", "even length", ("len({x}) % 2 == 0",), "not len({x}) % 2"),
    Filter("starts", (WORD,), "{nouns} that start with '{k}'", "prefixes", ("{x}.startswith('{k}')",),
           "{x}[:1] == '{k}'", "'{k}' in {x}", ("a", "b", "s")),
    Filter("ends", (WORD,), "{nouns} that end with '{k}'", "suffixes", ("{x}.endswith('{k}')",), "{x}[-1:] == '{k}'",
           "'{k}' in {x}", ("a", "e", "s")),
    Filter("contains", (WORD,), "{nouns} that contain '{k}'", "substrings", ("'{k}' in {x}",), "{x}.count('{k}') > 0",
           "{x}.startswith('{k}')", ("a", "e", "o")),
    Filter("lacks", (WORD,), "{nouns} without '{k}'", "missing letters", ("'{k}' not in {x}",),
           "{x}.count('{k}') == 0", "", ("a", "e", "o")),
    Filter("capitalized", (WORD,), "{nouns} that start with a capital", "capital letters", ("{x}[0].isupper()",),
           "{x}[:1] != {x}[:1].lower()", "{x}.isupper()"),
    Filter("palindrome", (WORD,), "{nouns} that read the same backwards", "palindromes", ("{x} == {x}[::-1]",),
           "list({x}) == list(reversed({x}))", "{x}[0] == {x}[-1]"),
    Filter("vowel", (LETTER,), "{nouns} that are vowels", "vowels", ("{x} in 'aeiou'",), "{x} in set('aeiou')",
           "{x} in 'aeio'"),
    Filter("consonant", (LETTER,), "{nouns} that are not vowels", "consonants", ("{x} not in 'aeiou'",),
           "{x} not in set('aeiou')", "{x} not in 'aeio'"),
    Filter("upper", (LETTER,), "uppercase {nouns}", "uppercase", ("{x}.isupper()",), "{x} != {x}.lower()"),
    Filter("lower", (LETTER,), "lowercase {nouns}", "lowercase", ("{x}.islower()",), "{x} != {x}.upper()"),
    Filter("before", (LETTER,), "{nouns} that come before '{k}'", "alphabetical order", ("{x} < '{k}'",),
           "'{k}' > {x}", "{x} <= '{k}'", ("m", "e", "s")),
    Filter("not_letter", (LETTER,), "{nouns} other than '{k}'", "exclusion", ("{x} != '{k}'",), "not {x} == '{k}'", "",
           ("a", "e", "s")),
)  # fmt: skip

MAPS = (
    Map("same", (NUMBER,), "{them}", "", ("{x}",), "{x}", gives=NUMBER),
    Map("same_word", (WORD,), "{them}", "", ("{x}",), "{x}", gives=WORD),
    Map("same_letter", (LETTER,), "{them}", "", ("{x}",), "{x}", gives=LETTER),
    Map("square", (NUMBER,), "the squares of {them}", "squares", ("{x} * {x}", "{x} ** 2"), "pow({x}, 2)", "{x} * 2",
        gives=NUMBER),
    Map("cube", (NUMBER,), "the cubes of {them}", "cubes", ("{x} ** 3",), "pow({x}, 3)", "{x} * 3", gives=NUMBER),
    Map("double", (NUMBER,), "the doubles of {them}", "doubling", ("{x} * 2", "2 * {x}"), "{x} + {x}", gives=NUMBER),
    Map("triple", (NUMBER,), "the triples of {them}", "tripling", ("{x} * 3", "3 * {x}"), "{x} + {x} + {x}",
        gives=NUMBER),
    Map("half", (NUMBER,), "the halves, rounded down, of {them}", "integer division", ("{x} // 2",),
        "({x} - {x} % 2) // 2", "{x} / 2", gives=NUMBER),
    Map("absolute", (NUMBER,), "the absolute values of {them}", "absolute values", ("abs({x})",), "max({x}, -{x})",
        "-{x}", gives=NUMBER),
    Map("negated", (NUMBER,), "the negatives of {them}", "negation", ("-{x}",), "0 - {x}", "abs({x})", gives=NUMBER),
    Map("plus", (NUMBER,), "{k} plus each of {them}", "addition", ("{x} + {k}",), "{k} + {x}", "", (1, 2, 3, 10),
        gives=NUMBER),
    Map("minus", (NUMBER,), "{k} less than each of {them}", "subtraction", ("{x} - {k}",), "-{k} + {x}", "{k} - {x}",
        (1, 2, 3, 10), gives=NUMBER),
    Map("times", (NUMBER,), "{k} times each of {them}", "multiplication", ("{x} * {k}",), "{k} * {x}", "", (4, 5, 10),
        gives=NUMBER),
    Map("last_digit", (NUMBER,), "the last digits of {them}", "last digit", ("abs({x}) % 10",), "int(str({x})[-1])",
        "{x} // 10", gives=NUMBER),
    Map("remainder", (NUMBER,), "the remainders by {k} of {them}", "remainders", ("{x} % {k}",), "divmod({x}, {k})[1]",
        "{x} // {k}", (3, 4, 5), gives=NUMBER),
    Map("capped", (NUMBER,), "{them}, each at most {k}", "clipping", ("min({x}, {k})",), "({x} if {x} < {k} else {k})",
        "max({x}, {k})", (3, 5), gives=NUMBER),
    Map("raised", (NUMBER,), "{them}, each at least {k}", "floors", ("max({x}, {k})",), "({x} if {x} > {k} else {k})",
        "min({x}, {k})", (0, 2), gives=NUMBER),
    Map("as_text", (NUMBER,), "the texts of {them}", "conversion to text", ("str({x})",), "'%d' % {x}", gives=WORD),
    Map("length", (WORD,), "the lengths of {them}", "lengths", ("len({x})",), "sum(1 for _ in {x})", "len({x}) - 1",
        gives=NUMBER),
    Map("vowels", (WORD,), "the vowel counts of {them}", "counting vowels", ("sum(c in 'aeiou' for c in {x})",),
        "len([c for c in {x} if c in 'aeiou'])", "sum(c in 'aeio' for c in {x})", gives=NUMBER),
    Map("count", (WORD,), "how often '{k}' is in each of {them}", "counting letters", ("{x}.count('{k}')",),
        "sum(c == '{k}' for c in {x})", "int('{k}' in {x})", ("a", "e", "o"), gives=NUMBER),
    Map("upper", STRINGS, "{them} in uppercase", "uppercase conversion", ("{x}.upper()",),
        "''.join(c.upper() for c in {x})", "{x}.capitalize()", gives=WORD),
    Map("capitalize", (WORD,), "{them}, each capitalized", "capitalization", ("{x}.capitalize()",),
        "{x}[:1].upper() + {x}[1:].lower()", "{x}.upper()", gives=WORD),
    Map("reversed", (WORD,), "{them}, each spelled backwards", "reversing strings", ("{x}[::-1]",),
        "''.join(reversed({x}))", "{x}[::1]", gives=WORD),
    Map("first", (WORD,), "the first letters of {them}", "first letters", ("{x}[0]",), "{x}[:1]", gives=LETTER),
    Map("last", (WORD,), "the last letters of {them}", "last letters", ("{x}[-1]",), "{x}[::-1][0]", "{x}[0]",
        gives=LETTER),
    Map("start", (WORD,), "the first {k} letters of {them}", "slicing", ("{x}[:{k}]",), "''.join(list({x})[:{k}])",
        "{x}[{k}:]", (2, 3), gives=WORD),
    Map("repeated", STRINGS, "{them}, each written twice", "repetition", ("{x} * 2",), "{x} + {x}", gives=WORD),
    Map("marked", (WORD,), "{them}, each followed by '!'", "joining text", ("{x} + '!'",), "'%s!' % {x}", "'!' + {x}",
        gives=WORD),
    Map("place", (LETTER,), "the places in the alphabet of {them}", "character codes", ("ord({x}.lower()) - 96",),
        "'abcdefghijklmnopqrstuvwxyz'.find({x}.lower()) + 1", "ord({x}.lower()) - 97", gives=NUMBER),
)  # fmt: skip

REDUCES = (
    Reduce("sum", (NUMBER,), "the sum of {them}", "sums", ("sum({xs})",), "sum(list({xs}))", returns="int"),
    Reduce("product", (NUMBER,), "the product of {them}, or 1 if there are none", "products",
           ("total = 1\nfor m in {xs}:\n    total *= m\nreturn total",), "",
           "total = 0\nfor m in {xs}:\n    total *= m\nreturn total", returns="int"),
    Reduce("largest", (NUMBER,), "the largest of {them}, or 0 if there are none", "maximum", ("max({xs}, default=0)",),
           "sorted([0, *{xs}][1:] or [0])[-1]", "max({xs})", returns="int"),
    Reduce("smallest", (NUMBER,), "the smallest of {them}, or 0 if there are none", "minimum",
           ("min({xs}, default=0)",), "sorted([0, *{xs}][1:] or [0])[0]", "min({xs})", returns="int"),
    Reduce("size", ALL, "the number of {them}", "counting", ("len({xs})",), "sum(1 for _ in {xs})", returns="int"),
    Reduce("list", ALL, "a list of {them}", "lists", ("{xs}",), "list({xs})", returns="list[{kind}]"),
    Reduce("ascending", ALL, "a sorted list of {them}", "sorting", ("sorted({xs})",),
           "sorted({xs}, reverse=True)[::-1]", returns="list[{kind}]"),
    Reduce("descending", ALL, "a list of {them} from largest to smallest", "descending order",
           ("sorted({xs}, reverse=True)",), "sorted({xs})[::-1]", "sorted({xs})", returns="list[{kind}]"),
    Reduce("backwards", ALL, "a list of {them} in reverse order", "reversal", ("{xs}[::-1]",), "list(reversed({xs}))",
           "sorted({xs}, reverse=True)", returns="list[{kind}]"),
    Reduce("distinct", ALL, "a sorted list of the distinct values of {them}", "removing duplicates",
           ("sorted(set({xs}))",), "sorted(dict.fromkeys({xs}))", "sorted({xs})", returns="list[{kind}]"),
    Reduce("distinct_count", ALL, "how many distinct values are among {them}", "sets", ("len(set({xs}))",),
           "len(dict.fromkeys({xs}))", "len({xs})", returns="int"),
    Reduce("first", ALL, "a list with the first of {them}, empty if there is none", "first elements", ("{xs}[:1]",),
           "{xs}[0:1]", returns="list[{kind}]"),
    Reduce("last", ALL, "a list with the last of {them}, empty if there is none", "last elements", ("{xs}[-1:]",),
           "{xs}[::-1][:1]", "{xs}[:-1]", returns="list[{kind}]"),
    Reduce("first_few", ALL, "a list of the first {k} of {them}", "taking a prefix", ("{xs}[:{k}]",), "[*{xs}][0:{k}]",
           "{xs}[{k}:]", (2, 3), returns="list[{kind}]"),
    Reduce("without_first", ALL, "a list of {them} without the first", "dropping elements", ("{xs}[1:]",),
           "{xs}[::-1][:-1][::-1]", "{xs}[:1]", returns="list[{kind}]"),
    Reduce("every_other", ALL, "a list of every second of {them}, from the first on", "steps", ("{xs}[::2]",),
           "[m for i, m in enumerate({xs}) if i % 2 == 0]", "{xs}[1::2]", returns="list[{kind}]"),
    Reduce("any", ALL, "whether there are any among {them}", "existence", ("len({xs}) > 0",), "bool(list({xs}))",
           returns="bool"),
    Reduce("none", ALL, "whether there are none among {them}", "absence", ("len({xs}) == 0",), "(not list({xs}))",
           returns="bool"),
    Reduce("spread", (NUMBER,), "the largest minus the smallest of {them}, or 0 if there are none", "ranges of values",
           ("max({xs}, default=0) - min({xs}, default=0)",), "", "max({xs}) - min({xs})", returns="int"),
    Reduce("mean", (NUMBER,), "the mean of {them}, rounded down, or 0 if there are none", "averages",
           ("sum({xs}) // len({xs}) if {xs} else 0",), "", "sum({xs}) // len({xs})", returns="int"),
    Reduce("running", (NUMBER,), "the running totals of {them}", "running totals",
           ("[sum({xs}[:i + 1]) for i in range(len({xs}))]",), "", "[sum({xs}[:i]) for i in range(len({xs}))]",
           returns="list[int]"),
    Reduce("counts", ALL, "a dictionary from each of {them} to how often it occurs", "frequencies",
           ("{{m: {xs}.count(m) for m in {xs}}}",), "", returns="dict[{kind}, int]"),
    Reduce("joined", STRINGS, "{them} joined by '{k}'", "joining strings", ("'{k}'.join({xs})",),
           "str.join('{k}', {xs})", "' '.join({xs})", ("-", ",", ""), returns="str"),
    Reduce("longest", (WORD,), "the longest of {them}, or '' if there are none", "longest string",
           ("max({xs}, key=len, default='')",), "", "max({xs}, default='')", returns="str"),
    Reduce("shortest", (WORD,), "the shortest of {them}, or '' if there are none", "shortest string",
           ("min({xs}, key=len, default='')",), "", "min({xs}, default='')", returns="str"),
)  # fmt: skip
