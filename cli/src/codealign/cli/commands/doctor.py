"""`codealign doctor`: check whether this machine can run the services."""

from __future__ import annotations

import typer
from rich.text import Text

from codealign.cli.diagnosis import Finding, examine
from codealign.cli.failures import EXIT_FAILURE
from codealign.cli.options import DEFAULT_HOME, HomeOption
from codealign.cli.terminal import count, out, printable

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(home: HomeOption = DEFAULT_HOME) -> None:
    """Check whether this machine can run every service.

    The exit code is 1 if there is a problem that prevents a run. Notes do not prevent a run.
    """
    findings = examine(home)
    for finding in findings:
        out.print(_line(finding))
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        out.print(Text(f"{count(problems, 'problem')} found", style="bold red"))
        raise typer.Exit(EXIT_FAILURE)
    out.print("no problems found")


def _line(finding: Finding) -> Text:
    text = Text(f"{finding.level:<8}", style=_STYLES[finding.level])
    text.append(f"{finding.what:<12} {printable(finding.found)}", style="default not bold")
    if finding.remedy:
        text.append(f"\n{'':<21}{finding.remedy}", style="default not bold")
    return text
