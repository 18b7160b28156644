"""`codealign sandbox`: run a program in the sandbox, and show its isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.table import Table
from rich.text import Text

from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.cli.connection import Connection, Target
from codealign.cli.enums import value_name
from codealign.cli.failures import EXIT_FAILURE, Failure
from codealign.cli.interrupts import run_async
from codealign.cli.options import (
    IsolationOption,
    connects,
    services,
)
from codealign.cli.records_view import code_view, facts_table, result_view
from codealign.cli.run_file import largest
from codealign.cli.source_text import read_bytes, read_source
from codealign.cli.stack import Options
from codealign.cli.terminal import out, print_json, printable, whole
from codealign.common.text import lines

app = typer.Typer(no_args_is_help=True, help="Run untrusted programs, and inspect the sandbox.")

_CONTEXT_LINES = 2
_GOOD = (sb.VERDICT_PASSED, sb.VERDICT_COMPLETED)


@app.command("exec")
@connects("sandbox")
def execute(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Program to run; - for standard input.")],
    tests: Annotated[
        Path | None, typer.Option("--tests", help="Tests to run after the program, in the same module.")
    ] = None,
    stdin: Annotated[Path | None, typer.Option("--stdin", help="Standard input of the program.")] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0, show_default=False, help="Wall-clock limit in seconds. 0: the profile's default."
        ),
    ] = 0,
    memory: Annotated[
        int,
        typer.Option(
            "--memory",
            min=0,
            max=largest(sb.Limits, "memory_bytes") // 2**20,
            show_default=False,
            help="Memory limit in MiB. 0: the profile's default.",
        ),
    ] = 0,
    profile: Annotated[str, typer.Option("--profile", help="Profile of the runner. Default: its first.")] = "",
    runs: Annotated[
        int, typer.Option("--runs", min=1, max=10, help="Number of executions. Differing verdicts give FLAKY.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    isolation: IsolationOption = "",
    *,
    where: Target,
) -> None:
    """Run one program in the sandbox and print its verdict.

    The exit code is 0 for the verdicts PASSED and COMPLETED, and 1 for all others.
    """
    program = sb.Program(
        language=sb.LANGUAGE_PYTHON,
        code=read_source(file),
        tests=read_source(str(tests)) if tests else "",
        stdin=read_bytes(stdin) if stdin else b"",
    )
    limits = sb.Limits(wall_seconds=timeout, memory_bytes=memory * 2**20)
    request = sb.ExecuteRequest(program=program, profile=profile, limits=limits, runs=runs)
    options = Options(isolation=isolation)
    options.check()

    async def work() -> sb.Result:
        async with services(where, "sandbox", options=options) as connection:
            if isolation and not connection.started:
                raise Failure("--isolation: has no effect on a sandbox service that is already running; omit it")
            return (
                await connection.call(connection.clients.sandbox.Execute, request, timeout=600 + 10 * timeout)
            ).result

    result = run_async(work())
    if as_json:
        print_json(_as_json(result))
    else:
        out.print(result_view(result))
        _show_failing_line(result, program)
    if result.verdict not in _GOOD:
        raise typer.Exit(EXIT_FAILURE)


def _as_json(result: sb.Result) -> dict[str, Any]:
    """Return the result as protobuf JSON, with each stream also as text (its bytes are base64)."""
    fields = json_format.MessageToDict(
        result, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for name, output in (("stdout", result.stdout), ("stderr", result.stderr)):
        fields.setdefault(name, {})["text"] = output.data.decode(errors="replace")
    return fields


def _show_failing_line(result: sb.Result, program: sb.Program) -> None:
    source = program.tests if result.failing_source == "tests" else program.code
    if not 0 < result.failing_line <= len(lines(source)):
        return
    first = max(0, result.failing_line - 1 - _CONTEXT_LINES)
    view = code_view(source, result.failing_line)
    view.line_range = (first + 1, result.failing_line + _CONTEXT_LINES)
    out.print(Text(f"{result.failing_source}:", style="bold"))
    out.print(view)


@app.command("info")
@connects("sandbox")
def info(
    *,
    where: Target,
) -> None:
    """Show the sandbox's capacity and runners, with the evidence of every isolation check."""

    async def work() -> tuple[sb.GetCapacityResponse, list[sb.Runner]]:
        async with services(where, "sandbox") as connection:
            return await _info(connection)

    capacity, runners = run_async(work())
    out.print(
        Text(
            f"{capacity.runners} runners, {capacity.slots} slots, {capacity.busy} busy, {capacity.queued} waiting "
            f"(limit {capacity.queue_limit})"
        )
    )
    for runner in runners:
        out.print()
        _print_runner(runner)


async def _info(connection: Connection) -> tuple[sb.GetCapacityResponse, list[sb.Runner]]:
    client = connection.clients.sandbox
    capacity = await connection.call(client.GetCapacity, sb.GetCapacityRequest())
    runners = await connection.call(client.GetRunner, sb.GetRunnerRequest())
    return capacity, list(runners.runners)


def runner_line(runner: sb.Runner) -> str:
    """Summarize a runner's isolation."""
    passed = sum(1 for check in runner.isolation_checks if check.passed)
    gvisor = f"gVisor {runner.gvisor_version}".strip() if runner.isolation == sb.ISOLATION_GVISOR else "NO gVisor"
    platform = f" on {runner.platform}" if runner.platform else ""
    return f"{runner.backend}, {gvisor}{platform}, {passed} of {len(runner.isolation_checks)} isolation checks passed"


def packages_line(runner: sb.Runner) -> str:
    """Return which packages programs may import besides the standard library."""
    found = [f"{name} {version}".strip() for name, version in sorted(runner.packages.items())]
    return ", ".join(found) or "none: programs can import only the standard library"


def _print_runner(runner: sb.Runner) -> None:
    facts = {
        "runner": runner.name,
        "state": value_name(sb.RunnerState.DESCRIPTOR, runner.state).lower(),
        "backend": f"{runner.backend} {runner.platform}".strip(),
        "gVisor": runner.gvisor_version,
        "isolation": value_name(sb.Isolation.DESCRIPTOR, runner.isolation).lower(),
        "slots": str(runner.slots),
        "Python": runner.python_version,
        "profiles": ", ".join(runner.profiles),
        "packages": packages_line(runner),
        "image": runner.image_digest,
    }
    out.print(facts_table(facts))
    table = Table(box=None, pad_edge=False)
    for column in ("isolation check", "passed", "evidence"):
        table.add_column(column)
    for check in runner.isolation_checks:
        passed = Text("yes", "green") if check.passed else Text("NO", "bold red")
        table.add_row(Text(printable(check.name)), passed, Text(printable(check.evidence)))
    out.print(whole(table))
