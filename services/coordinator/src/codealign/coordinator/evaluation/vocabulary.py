"""What builtins, methods of builtin types and the standard library change when they are called."""

# ruff: noqa: SIM905 - lists of so many words are easier to read as text.
from __future__ import annotations

SCALARS = frozenset(
    """
    abs all any bool chr complex divmod float format hash hex id input int len ord repr round str
    """.split()
)
"""Builtins whose result shares nothing with their arguments."""
CALLING = frozenset(["filter", "map", "max", "min", "sorted"])
"""Builtins that call what they are given."""
CHANGING = frozenset(["delattr", "next", "setattr"])
"""Builtins that change their first argument."""
DYNAMIC = frozenset(["__import__", "compile", "eval", "exec", "globals", "locals", "vars"])
"""Builtins that reach names which are not in the text."""
DYNAMIC_ATTRIBUTES = frozenset(["__globals__", "_getframe", "currentframe", "f_globals", "import_module", "modules"])
"""Attributes that do."""
READING_METHODS = frozenset(
    """
    bit_count bit_length capitalize casefold center copy count decode difference encode endswith find format get
    index intersection isalnum isalpha isascii isdecimal isdigit isdisjoint islower isnumeric isspace issubset
    issuperset isupper items join keys ljust lower lstrip most_common partition removeprefix removesuffix
    replace rfind rjust rsplit rstrip split splitlines startswith strip swapcase title translate union upper
    values zfill
    """.split()
)
"""They change neither what they are called on nor their arguments."""
FILLING_METHODS = frozenset(
    """
    add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse rotate
    setdefault sort update
    """.split()
)
"""They change what they are called on, and not their arguments."""
READING_MODULES = frozenset(
    """
    abc argparse calendar cmath collections copy dataclasses datetime doctest enum fileinput fractions itertools
    json math numbers pprint pytest re statistics string textwrap time timeit traceback types typing unittest
    """.split()
)
"""Their functions change nothing that a solution could depend on, their arguments included."""
CALLING_MODULES = frozenset(["bisect", "functools", "heapq", "operator"])
"""Their functions may change their arguments, or call them."""
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
"""What is as harmless in other modules."""
INPUT_PATHS = ("sys.stdin", "sys.argv", "argparse", "fileinput", "getpass")
"""What reads what a person gives a program."""
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
"""A call of these is there for what it shows."""
