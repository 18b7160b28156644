"""Names of the contracts' enum values, as commands print and accept them."""

from __future__ import annotations

import re
from collections.abc import Collection

from google.protobuf.descriptor import EnumDescriptor

from codealign.cli.failures import Failure
from codealign.cli.run_file import nearest

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def value_name(enum: EnumDescriptor, number: int) -> str:
    """Return a value's name without the enum's prefix, e.g. "TIMED_OUT" for VERDICT_TIMED_OUT.

    A value that this client does not know is named by its number, e.g. "verdict 99".
    """
    value = enum.values_by_number.get(number)
    if value is None:
        return f"{_WORD_START.sub(' ', enum.name).lower()} {number}"
    return value.name.removeprefix(_prefix(enum))


def value_names(enum: EnumDescriptor, without: Collection[str] = ()) -> list[str]:
    """Return the names of all values in the contract's order, without UNSPECIFIED and those in `without`."""
    names = [value_name(enum, value.number) for value in enum.values]
    return [name for name in names if name != "UNSPECIFIED" and name not in without]


def parse_value(option: str, enum: EnumDescriptor, given: str, without: Collection[str] = ()) -> int:
    """Return the number of the value that a user named.

    Case does not matter; "-" stands for "_"; the enum's prefix may be given.

    Args:
        option: The option, for the error message.
        enum: The enum.
        given: What the user wrote.
        without: Values that the option does not accept.

    Raises:
        Failure: There is no such value. The message suggests the nearest name.
    """
    known = value_names(enum, without)
    name = given.upper().replace("-", "_").removeprefix(_prefix(enum))
    if name not in known:
        raise Failure(f"{option} {given}: unknown value{nearest(name, known)}")
    return enum.values_by_name[_prefix(enum) + name].number


def _prefix(enum: EnumDescriptor) -> str:
    return _WORD_START.sub("_", enum.name).upper() + "_"
