"""What MBPP+'s file cannot say in JSON: the types of inputs, and how outputs are compared.

Which lists are tuples, sets or complex numbers, and which outputs are compared otherwise than by equality: facts
about the data, as EvalPlus has them (evalplus 0.3.1, `evalplus/data/mbpp.py`, `evalplus/eval/__init__.py` and
`_special_oracle.py`). The tests compare every input with EvalPlus' own reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = Callable[[list[Any]], list[Any]]


def _tagged(kind: str, of: Any) -> dict[str, Any]:
    return {"$": kind, "of": of}


def _tuple(value: Any) -> Any:
    if not isinstance(value, (list, str)):
        raise TypeError(f"a list is wanted, not {type(value).__name__}")
    return _tagged("tuple", list(value))


def _tuples(value: Any) -> list[Any]:
    return [_tuple(item) for item in value]


def _deep(value: Any) -> Any:
    return _tagged("tuple", [_deep(item) for item in value]) if isinstance(value, list) else value


def _complex(value: Any) -> Any:
    number = complex(value)
    return _tagged("complex", [number.real, number.imag])


def _set(value: Any) -> Any:
    # EvalPlus' reading: an empty list stands for an empty dict, and so does all that is no list.
    return _tagged("set", value) if isinstance(value, list) and value else {}


_SHAPES: dict[Shape, tuple[int, ...]] = {
    _tuples: (
        *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    lambda given: [_tuples(argument) for argument in given]: (
        *(63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ),
    lambda given: [_tuples(given[0]), given[1]]: (75, 413, 444, 753),
    lambda given: [given[0], _tuple(given[1])]: (106, 750),
    lambda given: [[_set(item) for item in given[0]]]: (115,),
    lambda given: [float(given[0]), _complex(given[1])]: (124,),
    lambda given: [_tuple(given[0]), given[1]]: (250, 405, 446, 617, 720, 763, 808),
    lambda given: [_complex(given[0])]: (252,),
    lambda given: [_tagged("tuple", _tuples(argument)) for argument in given]: (259, 401, 445),
    lambda given: [
        _tagged("tuple", [_tuple(item) if isinstance(item, list) else item for item in given[0]]),
    ]: (278,),
    lambda given: [_tuple(given[0]), given[1], given[2]]: (307,),
    lambda given: [_deep(argument) for argument in given]: (580, 615, 791),
    lambda given: [{key: _tuple(value) for key, value in given[0].items()}, *given[1:]]: (722,),
}
_SHAPE_OF = {number: shape for shape, numbers in _SHAPES.items() for number in numbers}

RULE_OF_ENTRY_POINT = {
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "not-none"),
    **dict.fromkeys(
        (
            *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
            *("intersection_array", "find_dissimilar", "Diff"),
        ),
        "set",
    ),
    "surface_Area": "surface-area",
    "digit_distance_nums": "digit-distance",
    "sum_div": "zero-too",
    "are_equivalent": "anything",
}
"""The rules of `in_sandbox/agreement.py`; all other problems have "equal"."""


def shaped(task_id: str, given: list[Any]) -> list[Any]:
    """The arguments of one call, with the types that its problem wants, as `in_sandbox/calls.py` decodes them.

    Raises:
        TypeError, ValueError, AttributeError, IndexError: They do not have the form that the problem has.
    """
    number = task_id.rpartition("/")[2]
    shape = _SHAPE_OF.get(int(number)) if number.isdecimal() else None
    return shape(given) if shape else given
