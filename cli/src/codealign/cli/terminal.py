"""Console output: results go to standard output, everything about the work itself to standard error."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sys
import time
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from codealign.cli.launcher import Event

_PIPED_COLUMNS = 160  # table width without a terminal: room for a hash beside its name


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_COLUMNS
    return console


out = _console(stderr=False)
err = _console(stderr=True)

# Besides what controls a terminal: every character that changes the direction of text, and line ends that are no "\n".
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_PLAIN_SECONDS = 15.0


def printable(text: str) -> str:
    """Return untrusted text without characters that would control the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def print_json(value: Any) -> None:
    """Print a value as indented JSON: non-ASCII text stays readable, terminal control characters are escaped."""
    _print_json(value, indent=2)


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line; see `print_json`."""
    _print_json(value, indent=None)


def _print_json(value: Any, indent: int | None) -> None:
    ascii_only = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    print(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def warn(console: Console, text: str) -> None:
    """Print a warning that must not be missed. Print nothing if the text is empty."""
    if text:
        console.print(Text(printable(text), style="bold red"))


def whole(table: Table) -> Table:
    """Return the table with cells that fold in a narrow terminal instead of being cut off."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    return table


def count(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def duration(seconds: float) -> str:
    """Format seconds: "0.4 s", "52 s", "3 min 05 s", "2 h 10 min"; "unknown" if it is not a number."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: float) -> str:
    """Format a number of bytes: "512 B", "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


class StartDisplay:
    """Display of services that are starting: a line for each ready service, and the state of the others.

    Args:
        console: Output console.
        brief: Print only which services start, and failures.
    """

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self._console = console
        self._brief = brief
        self._states: dict[str, tuple[str, float]] = {}
        self._said: dict[str, float] = {}
        self._status: Status | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.kind == "starting":
            self._states[event.service] = (event.text, event.seconds)
            self._show_states(event)
            return
        self._states.pop(event.service, None)
        if event.kind == "ready" and event.endpoint and not self._brief:
            self._console.print(
                Text(f"{event.service:<12} {event.endpoint.address:<21} ready in {duration(event.seconds)}")
            )
        elif event.kind == "ended":
            self._console.print(Text(printable(event.text), style="yellow"))
        if not self._states:
            self.close()

    def wait(self, text: str) -> None:
        """Print what the command waits for, once."""
        if self._said.get(text) is None:
            self._said[text] = time.monotonic()
            self._console.print(Text(text))

    def close(self) -> None:
        """Remove the live status line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show_states(self, event: Event) -> None:
        if self._console.is_terminal:
            text = ", ".join(
                f"{name} ({printable(state) or 'starting'}, {seconds:.0f} s)"
                for name, (state, seconds) in self._states.items()
            )
            if self._status is None:
                self._status = self._console.status("")
                self._status.start()
            self._status.update(Text(f"waiting for {text}"[: max(20, self._console.width - 4)]))
            return
        last = self._said.get(event.service)
        if last is None:
            self._said[event.service] = time.monotonic()
            if self._brief:
                self._console.print(Text(f"starting the {event.service} service"))
        elif time.monotonic() - last > _PLAIN_SECONDS:
            self._said[event.service] = time.monotonic()
            self._console.print(
                Text(f"{event.service:<12} {printable(event.text) or 'starting'} ({event.seconds:.0f} s)")
            )
