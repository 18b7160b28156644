"""Every command that the project's texts mention exists, with its options."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from codealign.cli import diagnosis
from codealign.cli.main import app
from codealign.cli.stack import SERVICES, service_package

ROOT = Path(__file__).parents[2]
KINDS = {".md", ".py", ".txt", ".yaml", ".toml", ".proto", ".jinja", ".html", ".sh"}
QUOTED = re.compile(r"`codealign ([^`\n]*)`")
LINE = re.compile(
    r"^ *(?:\$ |[A-Z_]+=\S+ )*(?:\.venv/bin/|\$\(BIN\)/)?codealign ((?:-|[a-z]+\b(?! [a-z]+ [a-z]+ )).*)$", re.M
)
BLOCK = re.compile(r"^```(?:bash|sh|shell|console|text)?\n(.*?)^```", re.M | re.S)
IN_TEXT = re.compile(r"\bcodealign ((?:data|sandbox|seeds|train|tls|certificate|eval) [a-z]+)\b")
WORD = re.compile(r"[a-z][a-z-]*")


def texts() -> Iterator[Path]:
    for folder in ("README.md", "docs", "cli", "services", "trainer", "sandbox-runner", "charts", "protos", "Makefile"):
        path = ROOT / folder
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if (file.suffix in KINDS or file.name == "Makefile") and "data" not in file.parts[len(ROOT.parts) + 2 : -1]:
                yield file


def mentions(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    yield from QUOTED.findall(text)
    if file.suffix == ".md":
        for block in BLOCK.findall(text):
            yield from LINE.findall(block)
    if "tests" not in file.parts:
        yield from IN_TEXT.findall(text)


def wrong(mention: str) -> str:
    """Return the part of a mentioned command that does not exist, or ""."""
    command: Any = typer.main.get_command(app)
    words = mention.split()
    while words and hasattr(command, "commands"):  # a group
        if words[0].startswith("-"):
            break
        default = getattr(command, "default", "")  # `codealign experiment table9`
        if not WORD.fullmatch(words[0]) and not default:  # a placeholder
            return ""
        found = command.commands.get(words.pop(0), command.commands.get(default))
        if found is None:
            return f"codealign {mention}"
        command = found
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = [re.split(r"[=,.;)\]\s]", word)[0] for word in words if re.match(r"\[?--[a-z]", word)]
    missing = [name.lstrip("[") for name in options if name.lstrip("[") not in known | {"--help"}]
    return f"codealign {mention}: {', '.join(missing)}" if missing else ""


def test_the_check_itself_finds_what_is_wrong() -> None:
    assert wrong("data lineage <id>") == ""
    assert wrong("data explain <id>")
    assert wrong("data lineage <id> --colour")
    assert wrong("explain")
    assert wrong("experiment table9 --plan") == wrong("experiment show EXPERIMENT --out FOLDER") == ""
    assert wrong("experiment table9 --no-such-option")
    assert wrong("data") == ""


def test_every_mentioned_command_exists() -> None:
    found = [(file, mention) for file in texts() if file != Path(__file__) for mention in mentions(file)]
    assert len(found) > 50
    faults = [f"{file.relative_to(ROOT)}: {fault}" for file, mention in found if (fault := wrong(mention))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("service", SERVICES)
def test_what_doctor_looks_for_can_be_imported(service: str) -> None:
    assert importlib.import_module(f"codealign.{service_package(service)}.main").main


def test_doctor_finds_every_package_of_a_sound_installation() -> None:
    importlib.import_module(diagnosis._SANDBOX_PACKAGE)
    findings = diagnosis._packages()
    assert {finding.level for finding in findings if finding.what == "package"} == {"ok"}
    named = [finding.found for finding in findings if finding.what == "package"]
    assert named == [f"codealign.{service_package(service)}" for service in SERVICES]
