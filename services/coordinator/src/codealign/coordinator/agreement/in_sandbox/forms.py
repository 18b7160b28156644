"""Writes values so that equal values have equal texts. Runs in the sandbox, before `observer.py` in one namespace.

Standard library only. See `agreement/observing.py` for the rules.
"""

from __future__ import annotations

import sys
from typing import Any

TEXT_LIMIT = 1_000
"""Characters of a value's form. A longer one is cut, with the digest of the whole."""
_SHOWN = 200
_MOST_NODES = 20_000
"""Values in a value; long texts count for several."""
_MOST_DEPTH = 40
_MOST_ITEMS = 1_000
"""Items taken of an iterator."""
_WHOLE = 1e12
"""Whole floats below this are written as integers, which they equal."""
_PLAIN = (str, bytes, bytearray, int, float, list, tuple, set, frozenset, dict)
_LIBRARY = frozenset({"array", "collections", "datetime", "decimal", "fractions", "itertools", "pathlib", "re", "uuid"})
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))


class Incomparable(Exception):
    """A value has no form: it cannot be compared with another program's."""


class Writer:
    """Writes the form of one value."""

    def __init__(self) -> None:
        self.floats = False
        """Whether the value contains a float."""
        self._nodes = 0

    def written(self, value: Any) -> str:
        """Return a text that is equal for equal values.

        Raises:
            Incomparable: There is none.
        """
        try:
            return self._form(value, 0)
        except Incomparable:
            raise
        except Exception as error:  # of the answer's properties
            raise Incomparable(f"to look at it raises {type_name(type(error))}") from error

    def _form(self, value: Any, depth: int) -> str:
        self._spend(1)
        if depth > _MOST_DEPTH:
            raise Incomparable("nested too deeply")
        kind = type(value)
        if value is None or kind is bool or value is Ellipsis or value is NotImplemented:
            return repr(value)
        if kind in _PLAIN:
            return self._plain(kind, value, depth)
        return self._other(kind, value, depth)

    def _spend(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > _MOST_NODES:
            raise Incomparable("too large")

    def _plain(self, kind: type, value: Any, depth: int) -> str:
        if kind is int:
            self._spend(value.bit_length() // 1_000)
            return repr(value) if value.bit_length() < 2_000 else f"int({value:#x})"
        if kind is float:
            self.floats = True
            return _of_float(value)
        if kind is str or kind is bytes or kind is bytearray:
            self._spend(len(value) // 100)
            return ascii(value)
        if kind is dict:
            pairs = [f"{self._form(key, depth + 1)}: {self._form(item, depth + 1)}" for key, item in value.items()]
            return "{" + ", ".join(sorted(pairs)) + "}"
        items = [self._form(item, depth + 1) for item in value]
        if kind is list:
            return f"[{', '.join(items)}]"
        if kind is tuple:
            return f"({', '.join(items)}{',' * (len(items) == 1)})"
        inside = ", ".join(sorted(items))
        if kind is set:
            return f"{{{inside}}}" if items else "set()"
        return f"frozenset({{{inside}}})" if items else "frozenset()"

    def _other(self, kind: type, value: Any, depth: int) -> str:
        name = type_name(kind)
        if _is_a(value, "enum", "Enum"):
            return f"{name}.{value.name}" if value.name else f"{name}({self._form(value.value, depth + 1)})"
        if isinstance(value, complex):
            self.floats = True
            return f"complex({_of_float(value.real)}, {_of_float(value.imag)})"
        for base in _PLAIN:
            if isinstance(value, base):
                return self._plain(base, _as_plain(base, value), depth)
        if _is_a(value, "numpy", "generic"):
            return self._form(value.item(), depth + 1)
        if _is_a(value, "numpy", "ndarray"):
            return f"array({self._form(value.tolist(), depth + 1)})"
        if isinstance(value, BaseException):
            return f"{name}{self._form(tuple(value.args), depth + 1)}"
        if kind.__module__ in _LIBRARY:
            return self._of_library(kind, value, depth)
        if isinstance(value, range):
            return f"range({value.start}, {value.stop}, {value.step})"
        if isinstance(value, _VIEWS):
            return f"{name}({self._form(list(value) if name.endswith('values') else set(value), depth + 1)})"
        if hasattr(kind, "__next__"):
            return self._of_iterator(value, depth)
        if isinstance(value, type):
            return f"class {type_name(value)}"
        return self._of_object(name, value, depth)

    def _of_library(self, kind: type, value: Any, depth: int) -> str:
        name = type_name(kind)
        if name == "deque":
            return f"deque({self._form(list(value), depth + 1)})"
        if name == "Decimal":
            return f"Decimal('{value.normalize() if value == value else value}')"
        if name == "array":
            return f"array({self._form(value.tolist(), depth + 1)})"
        if hasattr(kind, "__next__"):
            return self._of_iterator(value, depth)
        text = ascii(value)
        if " at 0x" in text:
            raise Incomparable(f"an object of type {name}")
        return text

    def _of_iterator(self, value: Any, depth: int) -> str:
        """Take the items: an iterator is no list and equals no other object, but its items can be compared."""
        items: list[str] = []
        try:
            for item in value:
                if len(items) == _MOST_ITEMS:
                    items.append("...")
                    break
                items.append(self._form(item, depth + 1))
        except Incomparable:
            raise
        except Exception as error:
            items.append(f"raises {type_name(type(error))}")
        return f"iterator({', '.join(items)})"

    def _of_object(self, name: str, value: Any, depth: int) -> str:
        fields = getattr(type(value), "__dataclass_fields__", None)
        if isinstance(fields, dict):
            names = [each for each, field in fields.items() if field.compare and not each.startswith("_")]
        else:
            slots = [each for base in type(value).__mro__ for each in _slots(base)]
            names = sorted({each for each in [*slots, *getattr(value, "__dict__", ())] if not each.startswith("_")})
        parts = [f"{each}={self._form(getattr(value, each), depth + 1)}" for each in names if hasattr(value, each)]
        if not parts:
            raise Incomparable(f"an object of type {name} without public attributes")
        return f"{name}({', '.join(parts)})"


def _slots(base: type) -> list[str]:
    slots = base.__dict__.get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _as_plain(base: Any, value: Any) -> Any:
    """Return a value of a subclass as what it derives from, past whatever methods the subclass has."""
    if base is str:
        return "".join(str.__iter__(value))
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value))


def _of_float(value: float) -> str:
    if value != value:
        return "nan"
    rounded = float(f"{value:.12g}")
    return str(int(rounded)) if abs(rounded) < _WHOLE and rounded == int(rounded) else repr(rounded)


def type_name(kind: type) -> str:
    """Return a class's name without asking its metaclass."""
    return str(type.__dict__["__name__"].__get__(kind))[:80]


def _is_a(value: Any, module: str, name: str) -> bool:
    """Return whether a value is of a class, which it cannot be before the class's module is imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def digest(data: bytes) -> str:
    """Return a short digest."""
    import hashlib  # few values are so long

    return hashlib.blake2b(data, digest_size=8).hexdigest()


def cut(text: str) -> str:
    """Return a text in ASCII; of a long one the beginning, with the digest of the whole."""
    plain = text.encode("ascii", "backslashreplace").decode()
    if len(plain) <= TEXT_LIMIT:
        return plain
    return f"{plain[:_SHOWN]}... ({len(plain)} characters, {digest(plain.encode())})"
