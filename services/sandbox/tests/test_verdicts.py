"""The verdict on each kind of program, in real gVisor."""

from __future__ import annotations

import pytest

from .conftest import Gateway, name_of

pytestmark = pytest.mark.gvisor

MIB = 1024 * 1024
ADD = "def add(a, b):\n    return a + b\n"


def test_a_correct_program_passes_with_its_assertions_counted(gateway: Gateway) -> None:
    result = gateway.run(ADD, "for n in range(5):\n    assert add(n, 1) == n + 1\nassert add(0, 0) == 0\n")
    assert name_of(result) == "PASSED"
    assert (result.assertions_executed, result.assertions_total) == (6, 2)
    assert result.exit_code == 0
    assert result.peak_memory_bytes > MIB
    assert result.wall_seconds > 0
    assert result.image_digest.startswith("sha256:")
    assert result.runner


def test_a_failed_assertion_names_its_line(gateway: Gateway) -> None:
    result = gateway.run(ADD, "assert add(1, 1) == 2\nassert add(1, 1) == 3, 'one and one'\n")
    assert name_of(result) == "FAILED_ASSERTION"
    assert (result.failing_line, result.failing_source, result.exception) == (2, "tests", "AssertionError")
    assert "add(1, 1) == 3" in result.detail
    assert b"one and one" in result.stderr.data


def test_a_failed_assertion_of_the_code_counts(gateway: Gateway) -> None:
    result = gateway.run("def f(x):\n    assert x > 0\n    return x\n", "assert f(-1) == -1")
    assert name_of(result) == "FAILED_ASSERTION"
    assert (result.failing_line, result.failing_source) == (2, "code")


def test_a_precondition_that_the_tests_provoke_is_no_failure(gateway: Gateway) -> None:
    tests = "try:\n    f(-1)\nexcept AssertionError:\n    pass\nelse:\n    assert False\nassert f(1) == 1\n"
    assert name_of(gateway.run("def f(x):\n    assert x > 0\n    return x\n", tests)) == "PASSED"


@pytest.mark.parametrize(
    "swallow", ["except Exception: pass", "except AssertionError as e: print('Failed', e)", "finally: exit(0)"]
)
def test_a_swallowed_assertion_is_still_failed(gateway: Gateway, swallow: str) -> None:
    result = gateway.run(ADD, f"assert add(1, 1) == 2\ntry:\n    assert add(1, 1) == 3\n{swallow}\n")
    assert name_of(result) == "FAILED_ASSERTION"
    assert result.failing_line == 3


def test_an_exception_is_told_with_its_place(gateway: Gateway) -> None:
    result = gateway.run("def f(x):\n    return 1 / x\n", "assert f(0) == 0")
    assert name_of(result) == "RAISED"
    assert (result.exception, result.failing_line, result.failing_source) == ("ZeroDivisionError", 2, "code")
    assert b'File "/box/work/solution.py", line 2, in f\n    return 1 / x' in result.stderr.data


@pytest.mark.parametrize(
    ("code", "tests", "source", "line"),
    [
        ("x = 1\ndef f(:\n", "assert True", "code", 2),
        ("x = 1", "assert x ==", "tests", 1),
        ("x = 1\0", "assert x", "code", 0),
        ("(" * 5000, "assert x", "code", 0),
        ("return 1", "assert True", "code", 1),
    ],
)
def test_what_does_not_compile_is_not_run(gateway: Gateway, code: str, tests: str, source: str, line: int) -> None:
    result = gateway.run("print('ran')\n" + code, tests)
    assert name_of(result) == "SYNTAX_ERROR"
    assert result.failing_source == source
    assert result.stdout.total_bytes == 0
    if line:
        assert result.failing_line == line + (source == "code")


@pytest.mark.parametrize(
    "end",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "exit()",
        "import os; os.execv('/bin/true', ['true'])",
    ],
)
def test_ending_before_the_tests_is_no_pass(gateway: Gateway, end: str) -> None:
    assert name_of(gateway.run(f"x = 1\n{end}\n", "assert x == 1")) == "EXITED_EARLY"


def test_an_exit_between_the_tests_is_no_pass(gateway: Gateway) -> None:
    assert name_of(gateway.run("import sys", "assert 1\nsys.exit(0)\nassert 0")) == "EXITED_EARLY"


def test_tests_without_an_assertion_are_no_tests(gateway: Gateway) -> None:
    result = gateway.run("print('ran')", "print(1)")
    assert name_of(result) == "NO_TESTS"
    assert result.stdout.total_bytes == 0


def test_an_assertion_that_is_never_reached_is_no_test(gateway: Gateway) -> None:
    result = gateway.run(ADD, "def test_add():\n    assert add(1, 1) == 2\n")
    assert name_of(result) == "NO_TESTS"
    assert (result.assertions_executed, result.assertions_total) == (0, 1)


def test_code_alone_completes(gateway: Gateway) -> None:
    result = gateway.run("if __name__ == '__main__':\n    print('hello')\n")
    assert (name_of(result), result.stdout.data) == ("COMPLETED", b"hello\n")


def test_the_main_guard_of_the_code_does_not_run_before_tests_and_that_of_the_tests_does(gateway: Gateway) -> None:
    result = gateway.run(
        "x = 1\nif __name__ == '__main__':\n    x = 2\n", "if __name__ == '__main__':\n    assert x == 1\n"
    )
    assert (name_of(result), result.assertions_executed) == ("PASSED", 1)


@pytest.mark.parametrize(("expected", "verdict"), [("6\n", "PASSED"), ("6  \n\n", "PASSED"), ("7", "FAILED_ASSERTION")])
def test_output_is_compared(gateway: Gateway, expected: str, verdict: str) -> None:
    result = gateway.run("print(sum(map(int, input().split())))", stdin=b"1 2 3\n", expected=expected)
    assert name_of(result) == verdict


def test_a_program_that_leaves_before_its_output_is_compared_has_not_passed(gateway: Gateway) -> None:
    result = gateway.run("import os\nprint(6, flush=True)\nos._exit(0)", expected="6")
    assert name_of(result) == "EXITED_EARLY"


def test_large_standard_input_arrives_whole(gateway: Gateway) -> None:
    result = gateway.run(
        "import sys\nprint(len(sys.stdin.buffer.read()))", stdin=b"x" * (3 * MIB), expected=str(3 * MIB)
    )
    assert name_of(result) == "PASSED"


def test_files_are_there(gateway: Gateway) -> None:
    result = gateway.run("text = open('data/a.txt').read()", "assert text == 'here'", files={"data/a.txt": b"here"})
    assert name_of(result) == "PASSED"


@pytest.mark.parametrize("path", ["''", "b''"])
def test_an_empty_path_is_a_file_that_is_not_there(gateway: Gateway, path: str) -> None:
    code = "def f(path):\n    try:\n        open(path)\n    except FileNotFoundError:\n        return 1\n"
    assert name_of(gateway.run(code, f"assert f({path}) == 1")) == "PASSED"


def test_unittest_counts_as_assertions(gateway: Gateway) -> None:
    tests = (
        "import unittest\nclass TestAdd(unittest.TestCase):\n    def test_it(self):\n"
        "        self.assertEqual(add(1, 1), {})\n        with self.assertRaises(TypeError):\n            add(1)\n"
        "if __name__ == '__main__':\n    unittest.main()\n"
    )
    passed = gateway.run(ADD, tests.format(2))
    assert (name_of(passed), passed.assertions_executed) == ("PASSED", 2)
    failed = gateway.run(ADD, tests.format(3))
    assert (name_of(failed), failed.failing_line) == ("FAILED_ASSERTION", 4)


def test_runs_that_differ_are_flaky(gateway: Gateway) -> None:
    # Six heads out of six happen once in 32 times: the harness draws each seed afresh.
    code = "import random\nlucky = random.random() < 0.5\n"
    results = [gateway.run(code, "assert lucky", runs=10) for _ in range(2)]
    assert "FLAKY" in [name_of(result) for result in results]
    assert all(len(result.run_verdicts) == 10 for result in results)


def test_invalid_utf8_is_kept_as_bytes(gateway: Gateway) -> None:
    result = gateway.run("import os\nos.write(1, bytes([255, 254, 10]))", "assert True")
    assert (name_of(result), result.stdout.data) == ("PASSED", b"\xff\xfe\n")


def test_much_output_is_cut_and_does_not_stop_the_program(gateway: Gateway) -> None:
    result = gateway.run("print('x' * 1_000_000)", "assert True")
    assert name_of(result) == "PASSED"
    assert result.stdout.truncated
    assert (len(result.stdout.data), result.stdout.total_bytes) == (65536, 1_000_001)
    assert result.wall_seconds < 5


def test_each_run_draws_its_own_random_numbers(gateway: Gateway) -> None:
    drawn = {gateway.run("import random\nprint(random.random())").stdout.data for _ in range(3)}
    assert len(drawn) == 3
