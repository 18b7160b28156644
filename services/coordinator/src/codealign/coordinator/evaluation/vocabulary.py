"""Side effects of builtins, methods of builtin types and standard library functions."""

# ruff: noqa: SIM905 - long word lists are easier to read as text.
from __future__ import annotations

SCALARS = frozenset(
    """
    abs all any bool chr complex divmod float format hash hex id input int len ord repr round str
    """.split()
)
"""Builtins whose result shares no state with their arguments."""
CONTAINERS = tuple(
    [name]
    for name in """
    bytearray bytes dict frozenset list range set sorted str tuple
    """.split()
)
"""Calls, as `effects.dotted` gives them, of builtins that return containers rather than iterators."""
CALLING = frozenset(["filter", "map", "max", "min", "sorted"])
"""Builtins that may call their arguments."""
CHANGING = frozenset(["delattr", "next", "setattr"])
"""Builtins that change their first argument."""
DYNAMIC = frozenset(["__import__", "compile", "eval", "exec", "globals", "locals", "vars"])
"""Builtins that access names dynamically."""
DYNAMIC_ATTRIBUTES = frozenset(["__globals__", "_getframe", "currentframe", "f_globals", "import_module", "modules"])
"""Attributes that access names dynamically."""
READING_METHODS = frozenset(
    """
    bit_count bit_length capitalize casefold center copy count decode difference encode endswith find format get
    index intersection isalnum isalpha isascii isdecimal isdigit isdisjoint islower isnumeric isspace issubset
    issuperset isupper items join keys ljust lower lstrip most_common partition removeprefix removesuffix
    replace rfind rjust rsplit rstrip split splitlines startswith strip swapcase title translate union upper
    values zfill
    """.split()
)
"""Methods that change neither their object nor their arguments."""
FILLING_METHODS = frozenset(
    """
    add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse rotate
    setdefault sort update
    """.split()
)
"""Methods that change their object but not their arguments."""
READING_MODULES = frozenset(
    """
    abc argparse calendar cmath collections copy dataclasses datetime doctest enum fileinput fractions itertools
    json math numbers pprint pytest re statistics string textwrap time timeit traceback types typing unittest
    """.split()
)
"""Modules whose functions change nothing that a solution could depend on, including their arguments."""
CALLING_MODULES = frozenset(["bisect", "functools", "heapq", "operator"])
"""Modules whose functions may change or call their arguments."""
READING_PATHS = (
    "sys.stdout",
    "sys.stderr",
    "sys.stdin",
    "sys.exit",
    "sys.argv",
    "sys.getsizeof",
    "os.path",
    "os._exit",
)
"""Parts of other modules that are as harmless as `READING_MODULES`."""
INPUT_PATHS = ("sys.stdin", "sys.argv", "argparse", "fileinput", "getpass")
"""Modules and objects that read user input."""
TESTING_PATHS = (
    "sys.stdout",
    "sys.stderr",
    "doctest",
    "unittest",
    "pytest",
    "pprint",
    "timeit",
    "sys.exit",
    "os._exit",
)
"""Modules and functions that are called only for output or tests."""
