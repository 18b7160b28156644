"""Benchmarks from the Hugging Face hub, used if there is no local file. Needs the extra `hub` (Parquet files).

The hub's HumanEval+ and MBPP+ embed their inputs in a test program. The inputs are extracted as literals and judged
like those of EvalPlus' files, with base and plus inputs in one part.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from codealign.common.foreign_python import without_warnings
from codealign.coordinator.evaluation import layouts
from codealign.coordinator.evaluation.files import Row

_PASSING = (408, 429)
"""HTTP statuses below 500 that are worth a retry: timeout, too many requests."""
_NETWORK = ("httpx", "httpcore", "requests", "urllib3")
"""Libraries whose errors count as connection errors."""


class Unreachable(Exception):
    """The hub, or the repository's file, is not accessible; the message says why."""


class Away(Unreachable):
    """The hub is temporarily unreachable; a retry may succeed."""


@dataclass(frozen=True)
class Source:
    """A dataset on the hub."""

    repository: str
    prefix: str
    """Path prefix of its Parquet files."""
    read: Callable[[Row], Row]
    """Convert a row of its table to one of the file layouts."""


def rows(source: Source) -> list[Row]:
    """Return every row of a dataset, in a layout that `layouts` reads.

    Raises:
        Unreachable: The dataset cannot be loaded.
    """
    found = [source.read(row) for row in _table(source)]
    if not found:
        raise Unreachable("the dataset is empty")
    return found


def _table(source: Source) -> Iterator[Row]:
    try:
        import huggingface_hub
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise Unreachable(f"{error.name} is not installed: pip install 'codealign-coordinator[hub]'") from None
    try:
        paths = huggingface_hub.HfApi().list_repo_files(source.repository, repo_type="dataset")
        wanted = sorted(path for path in paths if path.startswith(source.prefix) and path.endswith(".parquet"))
        if not wanted:
            raise Unreachable(f"the dataset has no {source.prefix}*.parquet")
        for path in wanted:
            file = huggingface_hub.hf_hub_download(source.repository, path, repo_type="dataset")
            for number, fields in enumerate(parquet.read_table(file).to_pylist(), 1):
                yield Row(f"{source.repository}/{path}", number, fields)
    except Unreachable:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = str(error).strip().splitlines() or [""]
        kind = Away if _may_pass(error) else Unreachable
        raise kind(f"{type(error).__name__}: {reason[0][:200]}") from None


def _may_pass(error: Exception) -> bool:
    """Return whether an error of the hub's client was caused by the network or the hub itself."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status in _PASSING
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK


def _as_it_is(row: Row) -> Row:
    return row


def _plus(row: Row) -> Row:
    """Convert a HumanEval+ row: `test` has `inputs = [...]`, and its assertions contain the tolerance."""
    return Row(row.file, row.line, {**row.fields, **_inputs(row)})


def _mbpp_plus(row: Row) -> Row:
    return Row(row.file, row.line, {**_mbpp(row).fields, **_inputs(row)})


def _mbpp(row: Row) -> Row:
    """Convert an MBPP row: a description, a solution and a list of assertions."""
    tests = row.fields.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise row.fault("test_list", "must be a list of assertions")
    imports = row.fields.get("test_imports") or []
    code = row.text("code").replace("\r\n", "\n")
    asserted = "\n".join(f"    {line}" for test in tests for line in test.strip().split("\n"))
    fields = {
        "task_id": f"Mbpp/{row.fields.get('task_id')}",
        "prompt": f'"""\n{row.text("prompt").strip()}\n{tests[0].strip()}\n"""\n',
        "entry_point": _called(row, code, tests[0]),
        "canonical_solution": f"\n{code}\n",
        "test": "\n".join([*imports, "def check(candidate):", asserted]),
    }
    return Row(row.file, row.line, fields)


def _called(row: Row, code: str, test: str) -> str:
    defined = re.findall(r"^def\s+(\w+)", code, re.MULTILINE)
    called = [name for name in re.findall(r"\b(\w+)\s*\(", test) if name in defined]
    if not called:
        raise row.fault("test_list", "the first assertion calls no function defined in `code`")
    return str(called[0])


def _inputs(row: Row) -> dict[str, Any]:
    """Extract the inputs and the tolerance from the test program."""
    inputs, atol = None, 0.0
    try:
        with without_warnings():
            tree = ast.parse(row.text("test"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["inputs"]:
                inputs = ast.literal_eval(node.value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "assertion" and len(node.args) == 3:
                atol = float(ast.literal_eval(node.args[2]))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise row.fault("test", f"cannot read the inputs ({error})") from None
    if not isinstance(inputs, list):
        raise row.fault("test", "must assign a list to `inputs`")
    calls = [[tagged(each) for each in given] for given in inputs]
    return {"base_input": calls, "plus_input": [], "atol": atol, layouts.TYPED: True}


def tagged(value: Any) -> Any:
    """Encode a value for `in_sandbox/calls.py`."""
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, tuple):
        return {"$": "tuple", "of": [tagged(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"$": "set", "of": [tagged(item) for item in value]}
    if isinstance(value, dict):
        return {"$": "dict", "of": [[tagged(key), tagged(item)] for key, item in value.items()]}
    if isinstance(value, complex):
        return {"$": "complex", "of": [value.real, value.imag]}
    return value


HUMANEVAL = Source("openai/openai_humaneval", "openai_humaneval/", _as_it_is)
HUMANEVAL_PLUS = Source("evalplus/humanevalplus", "data/", _plus)
MBPP = Source("google-research-datasets/mbpp", "sanitized/", _mbpp)
MBPP_PLUS = Source("evalplus/mbppplus", "data/", _mbpp_plus)
