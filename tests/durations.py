"""Pytest plugin: where the time of a run went, by file.

A run of more than a minute ends with its slowest files. All of them are kept in pytest's cache:
`.venv/bin/python -m pytest --cache-show 'codealign/durations*'`.
"""

from __future__ import annotations

from collections import Counter

import pytest

_SHOWN = 25
_SHOWN_FROM_SECONDS = 60.0


class Durations:
    """Adds up setup, call and teardown of each file's tests, those that ran in workers included."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        cache: pytest.Cache | None = getattr(config, "cache", None)  # none with `-p no:cacheprovider`
        if cache is not None:
            cache.set("codealign/durations", {file: round(took, 1) for file, took in self.seconds.most_common()})
        if sum(self.seconds.values()) < _SHOWN_FROM_SECONDS:
            return
        terminalreporter.section(f"slowest {_SHOWN} files")
        for file, took in self.seconds.most_common(_SHOWN):
            terminalreporter.write_line(f"{took:8.1f} s  {file}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(), "codealign-durations")
