"""Search for known texts in others, regardless of case, white space, wrapping, quoting and escapes.

The normal form of a text is its letters and digits only, so that quoting, wrapping, comment signs, Markdown, zero-width
characters and string escapes cannot change it. A short text must also begin and end at word boundaries, and short code
must agree in its operators, since `return a + b` and `return a - b` have the same normal form.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Self

FORM = 3
"""Version of the normal form and of the choice of texts: a change gives other rows."""
SHORT = 40
"""Normal-form characters below which a text must meet further conditions."""

# Any text of at least _GRAM + _STEP - 1 characters contains, at any position, one gram that is looked up.
_GRAM = 10
_STEP = 7
SHORTEST = _GRAM + _STEP - 1
"""Characters of the shortest normal form that can be found."""

_WORD = re.compile(r"[^\W_]+")
_NO_WORD = bytes(code for code in range(128) if not chr(code).isalnum())
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-f]{4})|x([0-9a-f]{2})|[nrtfv0])")
_INVISIBLE = ("Cf", "Mn")
_NO_CODE = re.compile(r"[^\w!%&()*+,\-./:<=>@\[\]^{|}~]+")
_PREFIX = r"[ \t]*(?:>|#|\*|\||//|--|\.\.\.:?|[-+]|in[ \t]?\[\d{1,5}\]:)"
_LINE_PREFIX = re.compile(rf"^{_PREFIX}", re.MULTILINE)
_LINE_PREFIXES = re.compile(rf"^(?:{_PREFIX})+", re.MULTILINE)
_LINE_SUFFIX = re.compile(r"(?:\||[\"'][ \t]*\+)[ \t]*$", re.MULTILINE)
"""End of a table's row, or of a piece of a concatenated string."""
_HTML_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:[ \t][^<>\n]{0,200})?/?>")
_NUMBERED = re.compile(r"^[ \t]*(?:l(?:ine)?[ \t]?)?\d{1,4}(?:[ \t]*[.:|)\]]|[ \t])", re.MULTILINE)
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_COMMENT = re.compile(r"#[^\n]*|\"\"\".*?\"\"\"|'''.*?'''", re.DOTALL)


@dataclass(frozen=True, order=True)
class Text:
    """A text that must not occur."""

    normal: str
    """Normal form of the text."""
    operators: str
    """For short code: its form with operators, which must occur too."""
    task: str
    """Task that the text belongs to, such as "HumanEval/3"."""

    @classmethod
    def prose(cls, text: str, task: str) -> Text:
        """Return the text of a description."""
        return cls(normal_form(text), "", task)

    @classmethod
    def code(cls, text: str, task: str) -> Text:
        """Return the text of a solution."""
        normal = normal_form(text)
        return cls(normal, operator_form(text) if len(normal) < SHORT else "", task)


@dataclass(frozen=True)
class BenchmarkTexts:
    """All texts that must not occur."""

    texts: tuple[Text, ...] = ()
    """Sorted; a text that belongs to several tasks has the first one's name."""

    @classmethod
    def of(cls, texts: Iterable[Text]) -> Self:
        """Return the collection of these texts, independent of their order."""
        found: dict[tuple[str, str], Text] = {}
        for text in sorted(texts):
            if len(text.normal) >= SHORTEST:
                found.setdefault((text.normal, text.operators), text)
        return cls(tuple(found.values()))

    @property
    def sha256(self) -> str:
        """Hash of all texts and of the normal form's version, or "" if there are no texts."""
        if not self.texts:
            return ""
        everything = "\0".join([str(FORM), *(f"{text.normal}\1{text.operators}" for text in self.texts)])
        return hashlib.sha256(everything.encode()).hexdigest()

    def find(self, *sources: str) -> str | None:
        """Return the task whose text occurs in one of the sources, or None. The longest of several texts counts."""
        found = [text for source in sources for text in self._in(source)]
        return min(found, key=lambda text: (-len(text.normal), text)).task if found else None

    def _in(self, source: str) -> list[Text]:
        if not self.texts:
            return []
        found = []
        plain = _plain(source)
        # Also search without comments and docstrings, HTML tags and line numbers, which may have been added to a copy.
        for variant in {plain, _COMMENT.sub(" ", plain), _HTML_TAG.sub("", plain), _NUMBERED.sub("", plain)}:
            hits = self._hits(_squeezed(variant))
            if hits:
                edges = set(accumulate(map(len, _WORD.findall(variant)), initial=0))
                operators = {text.operators for text, _ in hits if text.operators}
                forms = _operator_forms(variant) if operators else ()
                there = {each for each in operators if any(each in form for form in forms)}
                found += [text for text, start in hits if _agrees(text, start, edges, there)]
        return found

    def _hits(self, normal: str) -> set[tuple[Text, int]]:
        """Return each text whose normal form occurs in this one, with its position."""
        grams, hits = self._grams, set()
        for at in range(0, len(normal) - _GRAM + 1, _STEP):
            for text, offset in grams.get(normal[at : at + _GRAM], ()):
                if at >= offset and normal.startswith(text.normal, at - offset):
                    hits.add((text, at - offset))
        return hits

    @cached_property
    def _grams(self) -> dict[str, list[tuple[Text, int]]]:
        """Map each text's rarest _STEP successive grams to the text: one of them is at a multiple of _STEP."""
        often = Counter(
            text.normal[at : at + _GRAM] for text in self.texts for at in range(len(text.normal) - _GRAM + 1)
        )
        found: dict[str, list[tuple[Text, int]]] = defaultdict(list)
        for text in self.texts:
            counts = [often[text.normal[at : at + _GRAM]] for at in range(len(text.normal) - _GRAM + 1)]
            sums = [0, *accumulate(counts)]
            start = min(range(len(counts) - _STEP + 1), key=lambda at: sums[at + _STEP] - sums[at])
            for at in range(start, start + _STEP):
                found[text.normal[at : at + _GRAM]].append((text, at))
        return dict(found)


def normal_form(text: str) -> str:
    """Return a text's letters and digits, without case and accents."""
    return _squeezed(_plain(text))


def operator_form(text: str) -> str:
    """Return code without white space, quotes and backslashes."""
    return _NO_CODE.sub("", _plain(text))


def _operator_forms(plain: str) -> tuple[str, ...]:
    """Return the code as it is, and without what surrounds the lines of quoted, listed or commented-out code.

    Lines of code that is also wrapped may begin or end with an operator, so either one prefix or all are removed, and
    suffixes or none.
    """
    without = _LINE_PREFIX.sub("", plain)
    texts = plain, without, _LINE_PREFIXES.sub("", plain), _LINE_SUFFIX.sub("", without)
    return tuple(_NO_CODE.sub("", text) for text in texts)


def _agrees(text: Text, start: int, edges: set[int], operators: set[str]) -> bool:
    if len(text.normal) >= SHORT:
        return True
    if start not in edges or start + len(text.normal) not in edges:
        return False
    return not text.operators or text.operators in operators


def _squeezed(plain: str) -> str:
    if plain.isascii():
        return plain.encode().translate(None, _NO_WORD).decode()
    return "".join(_WORD.findall(plain))


def _plain(text: str) -> str:
    """Return the text without case, accents and invisible characters, with string and HTML escapes resolved."""
    text = _visible(text)
    resolved = _ESCAPE.sub(_resolved, text) if "\\" in text else text
    for _ in range(2):  # some pages escape text twice
        resolved = html.unescape(resolved) if "&" in resolved else resolved
    return text if resolved == text else _visible(resolved)


def _visible(text: str) -> str:
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text).translate(_DASHES)
        text = "".join(letter for letter in decomposed if unicodedata.category(letter) not in _INVISIBLE)
    return text.casefold()


def _resolved(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else " "
