"""Execution of the recipe's own programs without a sandbox."""

from __future__ import annotations

import contextlib
import io

from codealign.api.sandbox.v1 import sandbox_pb2 as sb


def execute(program: sb.Program) -> sb.Result:
    """Return what the sandbox would. Never pass text that a model wrote."""
    printed = io.StringIO()
    result = sb.Result(verdict=sb.VERDICT_PASSED)
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(f"{program.code}\n{program.tests}", "program", "exec"), {})
    except SyntaxError as error:
        result = sb.Result(verdict=sb.VERDICT_SYNTAX_ERROR, detail=f"SyntaxError: {error.msg}")
    except AssertionError:
        result = sb.Result(verdict=sb.VERDICT_FAILED_ASSERTION)
    except Exception as error:
        result = sb.Result(verdict=sb.VERDICT_RAISED, detail=f"{type(error).__name__}: {error}")
    result.stdout.data = printed.getvalue().encode()
    return result
