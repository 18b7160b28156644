"""Cleaned solutions behave like the whole text, and demonstrations at the margin do not break them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from codealign.coordinator.evaluation.programs import clean

CASES = [json.loads(line) for line in Path(__file__).with_name("clean.jsonl").read_text("utf-8").split("\n") if line]
_PROGRAM = """\
import json, os, sys, traceback
for case in json.load(sys.stdin):
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        sys.stdin = open(os.devnull)
        said = b""
        try:
            space = {"__name__": "solution"}
            exec(case["text"], space)
            space["f"] = space[case["entry_point"]]
            assert eval(case["must_hold_for_f"], space), "it does not hold"
        except BaseException:
            said = traceback.format_exc().encode()
        os.write(write, said[-4000:])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        print(json.dumps(file.read().decode()), flush=True)
"""


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    """Faults of each cleaned text, each executed in its own process."""
    cleaned = [case | {"text": clean(case["text"], case["entry_point"]).removeprefix("\ufeff")} for case in CASES]
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        input=json.dumps(cleaned),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    return {case["name"]: fault for case, fault in zip(CASES, said, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_the_function_needs_stays_and_nothing_else_stops_it(case: dict[str, str], faults: dict[str, str]) -> None:
    cleaned = clean(case["text"], case["entry_point"])
    assert not faults[case["name"]], cleaned
    assert clean(cleaned, case["entry_point"]) == cleaned
