"""Calls a function on every input and writes down what came back. Runs in the sandbox, beside the solution.

Standard library only, and of it only what every execution needs, because imports take as long as the rest of a small
program. The outputs leave as normal forms: texts that are equal where Python calls the values equal (1, 1.0 and True; a
dict in any order), and that say nothing of what was expected. A long text leaves as its digest. The process that
compares them is another one.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Sequence
from typing import Any

INPUTS_FILE = "codealign-inputs.json"
MARKER = b"\ncodealign-outputs "
SEPARATOR = b"\t"
"""On the marker's line between the outputs and the times: JSON has no tab."""
TEXT_LIMIT = 64 * 1024
"""A normal form longer than this, in characters, leaves as its digest."""
TOTAL_LIMIT = 600 * 1024
"""Normal forms of all calls together; beyond it the longest leave as digests. A stream keeps 1 MiB."""
FLOAT_MARK = ',"float":1'
"""In the normal form of a large whole number that was a float: it takes no part in equality. A text's normal
form has no such thing, since each quotation mark in it has a backslash before it."""
_CHUNK = 1000
_MOST_DIGITS = 100_000
"""A Decimal with more digits before or after its point is not written out: it may have a billion."""
_WAITING_SECONDS = 20.0
"""A call may take so much more wall-clock time than four times its CPU time."""
_SMALL = 2**63
_NAMED = (type, type(len), type(str.upper))
_encode = json.JSONEncoder(separators=(",", ":")).encode


class CallTimedOut(Exception):
    """A call used up its time."""


class _Streams:
    """Standard streams that lead nowhere while the function is called: text streams over a descriptor of /dev/null.

    They are opened once, and again only where a call closed them.
    """

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self._lost: list[Any] = []
        """Never freed: their end would close a descriptor that may be another's by then."""

    def __enter__(self) -> None:
        self._before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        for name in self._before:
            if not _is_usable(self._streams.get(name)):
                self._lost.append(self._streams.get(name))
                self._streams[name] = _nowhere(name)
            setattr(sys, name, self._streams[name])

    def __exit__(self, *_: object) -> None:
        for name, stream in self._before.items():
            setattr(sys, name, stream)


def _is_usable(stream: Any) -> bool:
    try:
        return stream is not None and not stream.closed and os.fstat(stream.fileno()) is not None
    except (ValueError, OSError):  # detached, or its descriptor is closed
        return False


def _nowhere(name: str) -> io.TextIOWrapper:
    """A stream like the interpreter's own of this name."""
    raw = io.FileIO(os.devnull, "r" if name == "stdin" else "w")
    raw.name = f"<{name}>"
    buffer = io.BufferedReader(raw) if name == "stdin" else io.BufferedWriter(raw)
    # Whatever is printed can be encoded: nobody reads it.
    stream = io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    stream.mode = "r" if name == "stdin" else "w"  # type: ignore[misc]
    return stream


def decoded(value: Any) -> Any:
    """A value out of JSON: what JSON has no form for is {"$": kind, "of": ...}."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind: Any = value.get("$")
    of: Any = value.get("of")
    if kind == "tuple":
        return tuple(decoded(item) for item in of)
    if kind == "set":
        return {decoded(item) for item in of}
    if kind == "dict":
        return {decoded(key): decoded(item) for key, item in of}
    if kind == "complex":
        return complex(*of)
    return {key: decoded(item) for key, item in value.items()}


def normal(value: Any) -> str:
    """The normal form of a value: JSON, with {"kind": ...} for what JSON has no form for."""
    kind = type(value)
    if kind is str:
        return _encode(value)
    if kind is int or kind is bool:
        return str(int(value)) if -_SMALL <= value < _SMALL else f'{{"int":"{value:x}"}}'
    if value is None:
        return "null"
    if kind is float:
        return _of_float(value)
    if kind is list:
        return f"[{_of_items(value)}]"
    if kind is tuple:
        return f'{{"tuple":[{_of_items(value)}]}}'
    return _of_other(value)


def _of_items(items: Sequence[Any]) -> str:
    """Items in their order; those of one plain type at once, since outputs have millions of them."""
    if items and type(items[0]) is str and (plain := _of_plain_texts(items)):
        return plain
    kinds = set(map(type, items))
    if kinds == {str} or (kinds == {int} and min(items) >= -_SMALL and max(items) < _SMALL):
        return _encode(items)[1:-1]
    return ",".join(map(normal, items))


def _of_plain_texts(items: Sequence[str]) -> str:
    """Texts that need no escapes; else nothing."""
    try:
        joined = '","'.join(items)
    except TypeError:  # not all are texts
        return ""
    plain = joined.isascii() and joined.isprintable() and "\\" not in joined
    return f'"{joined}"' if plain and joined.count('"') == 2 * (len(items) - 1) else ""


def _of_float(value: float) -> str:
    if value.is_integer():
        whole = normal(int(value))
        return whole if whole[0] != "{" else f"{whole[:-1]}{FLOAT_MARK}}}"
    if value != value:
        return f'{{"nan":"{os.urandom(8).hex()}"}}'  # equal to nothing
    return repr(value) if math.isfinite(value) else f'{{"float":"{value!r}"}}'


def _of_other(value: Any) -> str:
    """Sets, dicts, other numbers, and subclasses, which are equal to what they derive from."""
    if isinstance(value, complex):
        if value.imag == 0:
            return _of_float(value.real)
        return f'{{"complex":[{_of_float(value.real)},{_of_float(value.imag)}]}}'
    if _is_a(value, "decimal", "Decimal") or _is_a(value, "fractions", "Fraction"):
        return _of_exact(value)
    if isinstance(value, (bytes, bytearray)):
        return f'{{"bytes":"{value.hex()}"}}'
    if isinstance(value, (set, frozenset, KeysView, ItemsView)):
        return f'{{"set":[{",".join(sorted(map(normal, value), key=_unmarked))}]}}'
    if isinstance(value, dict):
        pairs = sorted((f"[{normal(key)},{normal(item)}]" for key, item in dict.items(value)), key=_unmarked)
        return f'{{"dict":[{",".join(pairs)}]}}'
    bases: tuple[tuple[type, Callable[[Any], Any]], ...] = (
        (int, int),
        (float, float),
        (str, lambda text: str.__getitem__(text, slice(None))),
        (list, list),
        (tuple, tuple),
    )
    for base, plain in bases:
        if isinstance(value, base):
            return normal(plain(value))
    return _of_library(value) or _opaque()


def _is_a(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class, which it cannot be before the class's module is imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _opaque() -> str:
    return f'{{"object":"{os.urandom(8).hex()}"}}'  # whatever its __eq__ says, it is equal to nothing


def _unmarked(text: str) -> str:
    return text.replace(FLOAT_MARK, "")


def _of_library(value: Any) -> str:
    """Values of other types of the standard library, and numbers of numpy; nothing for what is equal to itself alone.

    Types are told by their names: what the program has not imported is not imported for it.
    """
    if value is Ellipsis or value is NotImplemented or (isinstance(value, _NAMED) and _is_named(value)):
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
        return f'{{"name":{_encode(name)}}}'
    if isinstance(value, range):
        ends = [value[0], value[-1]] if value else []
        parts = [*ends, value.step] if ends and ends[0] != ends[1] else ends
        return f'{{"range":{normal(parts)}}}'
    for base in type(value).__mro__:
        form = _LIBRARY.get(f"{base.__module__}.{base.__qualname__}")
        if form is not None:
            kind, of = form(value)
            return normal(of) if not kind else f'{{"{kind}":{normal(of)}}}'
    return ""


def _is_named(value: Any) -> bool:
    """Whether a class, a builtin function or a builtin type's method is the one that its module has by its name."""
    if value is type(None):
        return True
    owner = getattr(value, "__objclass__", None)
    if owner is not None:
        return getattr(owner, value.__name__, None) is value and _is_named(owner)
    return getattr(sys.modules.get(value.__module__ or ""), value.__qualname__, None) is value


def _of_moment(value: Any) -> tuple[str, Any]:
    """A datetime or a time: with an offset what counts is the instant."""
    offset = value.utcoffset()
    if offset is None:
        return ("datetime" if hasattr(value, "toordinal") else "time"), value.isoformat()
    days = value.toordinal() if hasattr(value, "toordinal") else 0
    seconds = ((days * 24 + value.hour) * 60 + value.minute) * 60 + value.second
    whole = seconds - (offset.days * 86400 + offset.seconds)
    return "instant" if days else "time with offset", whole * 10**6 + value.microsecond - offset.microseconds


def _of_view(value: Any) -> tuple[str, Any]:
    return ("", value.tobytes()) if value.format in ("B", "b", "c") else ("array", value.tolist())


_LIBRARY: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "array.array": lambda value: ("array", list(value)),
    "builtins.mappingproxy": lambda value: ("", dict(value)),
    "builtins.memoryview": _of_view,
    "builtins.slice": lambda value: ("slice", [value.start, value.stop, value.step]),
    "collections.ChainMap": lambda value: ("", dict(value)),
    "collections.UserDict": lambda value: ("", dict(value)),
    "collections.UserList": lambda value: ("", list(value)),
    "collections.UserString": lambda value: ("", str(value)),
    "collections.deque": lambda value: ("deque", list(value)),
    "datetime.datetime": _of_moment,
    "datetime.date": lambda value: ("date", value.isoformat()),
    "datetime.time": _of_moment,
    "datetime.timedelta": lambda value: ("span", [value.days, value.seconds, value.microseconds]),
    "datetime.timezone": lambda value: ("zone", str(value.utcoffset(None))),
    "ipaddress._IPAddressBase": lambda value: ("address", [value.version, str(value)]),
    "numpy.generic": lambda value: ("", value.item()),
    "pathlib.PurePosixPath": lambda value: ("path", str(value)),
    "pathlib.PureWindowsPath": lambda value: ("windows path", str(value).lower()),
    "types.GenericAlias": lambda value: ("alias", repr(value)),
    "types.SimpleNamespace": lambda value: ("namespace", vars(value)),
    "re.Pattern": lambda value: ("pattern", [value.pattern, value.flags]),
    "types.UnionType": lambda value: ("union", {normal(each) for each in value.__args__}),
    "typing._BaseGenericAlias": lambda value: ("typing alias", repr(value)),
    "uuid.UUID": lambda value: ("uuid", value.int),
}
"""By a type's name: what distinguishes values of it, and the kind under which they are equal. No kind: as what they
are made into."""


def _of_exact(value: Any) -> str:
    from fractions import Fraction

    # Neither a fraction nor a large Decimal can be made into a float to ask whether it is finite.
    is_decimal = _is_a(value, "decimal", "Decimal")
    if is_decimal and not value.is_finite():
        return _of_float(float("nan" if value.is_nan() else value))
    if is_decimal and value and abs(value.adjusted()) > _MOST_DIGITS:
        sign, digits, exponent = value.as_tuple()
        text = "".join(map(str, digits))
        return f'{{"decimal":"{sign}:{text.rstrip("0")}:{int(exponent) + len(text)}"}}'
    if value == int(value):
        return normal(int(value))
    exact = Fraction(value)
    try:
        near = float(exact)
    except OverflowError:
        near = 0.0
    if Fraction(near) == exact:
        return repr(near)
    return f'{{"ratio":"{exact.numerator:x}/{exact.denominator:x}"}}'  # in decimal, long numbers have no text


def _pieces(value: Any) -> Iterator[str]:
    """The normal form in pieces, so that a list of millions is never one text."""
    if type(value) not in (list, tuple) or len(value) <= _CHUNK:
        yield normal(value)
        return
    opening, closing = ("[", "]") if type(value) is list else ('{"tuple":[', "]}")
    yield opening
    for start in range(0, len(value), _CHUNK):
        yield ("," if start else "") + _of_items(value[start : start + _CHUNK])
    yield closing


def _floats(value: Any) -> bool:
    """A float, or a list or tuple of floats only: compared with a tolerance."""
    if isinstance(value, float):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value)


def described(value: Any) -> list[Any]:
    """[normal form or "", else its digest, the type's name, whether it is made of floats]."""
    kept, size, digest = [], 0, None
    try:
        for piece in _pieces(value):
            size += len(piece)
            if size <= TEXT_LIMIT:
                kept.append(piece)
                continue
            if digest is None:
                digest = _digest("".join(kept))
            digest.update(_unmarked(piece).encode())
    except RecursionError:  # it contains itself, or is nested too deeply to be compared
        kept, digest = [_opaque()], None
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = "" if digest else "".join(kept)
    return [text, digest.hexdigest() if digest else "", name[:80], _floats(value)]


def _digest(text: str) -> Any:
    import hashlib  # few outputs are so long

    return hashlib.blake2b(_unmarked(text).encode(), digest_size=16)


def _within_total(outputs: list[list[Any]]) -> list[list[Any]]:
    total = 0
    for output in sorted(outputs, key=lambda each: len(each[0])):
        total += len(output[0])
        if total > TOTAL_LIMIT:
            output[:2] = "", output[1] or _digest(output[0]).hexdigest()
    return outputs


def _ring(*_: object) -> None:
    raise CallTimedOut("a call used up its time")


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 4 * seconds + _WAITING_SECONDS if seconds else 0)


def answers(function: Callable[..., Any]) -> Iterator[bool]:
    """Call the function on each input in turn; True for each call that came back.

    The calls' time is CPU time, so that a busy machine fails nobody; wall-clock time ends a call that waits.

    Raises:
        CallTimedOut: A call took longer than it may.
        BaseException: Whatever a call raises.
    """
    with io.open(INPUTS_FILE, encoding="utf-8") as file:  # noqa: UP020 (the solution may have another `open`)
        asked = json.load(file)
    limits, as_set = asked["seconds"], asked["as_set"]
    for ring in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ring, _ring)
    outputs, seconds, streams = [], [], _Streams()
    for number, given in enumerate(asked["inputs"]):
        arguments = decoded(given)
        with streams:
            begun = time.process_time()
            _set_timers(limits[number] if limits else 0)
            try:
                output = function(*arguments)
            finally:
                _set_timers(0)
        seconds.append(round(time.process_time() - begun, 6))
        outputs.append(described(set(output) if as_set else output))
        del output
        yield True
    parts = (json.dumps(part).encode() for part in (_within_total(outputs), seconds))
    _write(MARKER + SEPARATOR.join(parts) + b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
