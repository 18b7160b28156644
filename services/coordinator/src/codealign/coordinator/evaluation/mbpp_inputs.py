"""MBPP+ facts that its JSON file cannot express: types of inputs, and comparison rules for outputs.

Lists which inputs are tuples, sets or complex numbers, and which outputs are not compared by equality. Source: evalplus
0.3.1, `evalplus/data/mbpp.py`, `evalplus/eval/__init__.py` and `_special_oracle.py`. The tests compare every input with
EvalPlus' own decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = Callable[[list[Any]], list[Any]]


def _tagged(kind: str, of: Any) -> dict[str, Any]:
    return {"$": kind, "of": of}


def _tuple(value: Any) -> Any:
    if not isinstance(value, (list, str)):
        raise TypeError(f"must be a list, is {type(value).__name__}")
    return _tagged("tuple", list(value))


def _tuples(value: Any) -> list[Any]:
    return [_tuple(item) for item in value]


def _deep(value: Any) -> Any:
    return _tagged("tuple", [_deep(item) for item in value]) if isinstance(value, list) else value


def _complex(value: Any) -> Any:
    number = complex(value)
    return _tagged("complex", [number.real, number.imag])


def _set(value: Any) -> Any:
    # As in EvalPlus: an empty list, and anything that is not a list, stands for an empty dict.
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
"""Rules of `in_sandbox/agreement.py` by entry point; all other problems use "equal"."""


def shaped(task_id: str, given: list[Any]) -> list[Any]:
    """Return the arguments of one call with the types that the problem expects, encoded for `in_sandbox/calls.py`.

    Raises:
        TypeError, ValueError, AttributeError, IndexError: The arguments do not have the form of the problem's inputs.
    """
    number = task_id.rpartition("/")[2]
    shape = _SHAPE_OF.get(int(number)) if number.isdecimal() else None
    return shape(given) if shape else given
