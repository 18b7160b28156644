"""The documentation names files that exist, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs/architecture"
PAGES = sorted(path for path in ARCHITECTURE.glob("*.md") if path.name != "README.md")
TOP = ("charts/", "cli/", "docs/", "protos/", "sandbox-runner/", "services/", "tests/", "trainer/")
CODE = re.compile(r"`([\w./-]+)`")
"""A word in code font that may be a path."""
SUFFIXES = (".c", ".css", ".jinja", ".json", ".md", ".proto", ".py", ".sh", ".toml", ".tpl", ".yaml", "/")
BASE = re.compile(r"Paths are relative to (`[^.]+?)\.\n")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def markdown_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def named_paths(text: str) -> list[str]:
    """Words in code font that look like a file or a folder of the repository."""
    prose = FENCE.sub("", text)
    return [word for word in CODE.findall(prose) if word.endswith(SUFFIXES) and not word.startswith("/")]


def missing_paths(text: str) -> list[str]:
    """Named paths that exist neither from the root nor below a folder that the page declares."""
    declared = [base for bases in BASE.findall(text) for base in CODE.findall(bases)]
    bases = [ROOT / base for base in declared]
    return [
        path
        for path in named_paths(text)
        if not (ROOT / path).exists() and (path.startswith(TOP) or not any((base / path).exists() for base in bases))
    ]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_on_the_architecture_names_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(named_paths(text)) > 10
    assert missing_paths(text) == []


def test_the_overview_names_files_that_exist_and_every_page() -> None:
    text = (ARCHITECTURE / "README.md").read_text(encoding="utf-8")
    assert missing_paths(text) == []
    assert {page.name for page in PAGES} <= set(LINK.findall(text))


def test_every_decision_is_in_the_index_and_has_its_four_parts() -> None:
    folder = ROOT / "docs/decisions"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    linked = LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert linked == [page.name for page in pages]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.match(rf"# {page.name[:3]}: ", text), page.name
        assert re.search(r"^\*\*Status\*\*: ", text, re.MULTILINE), page.name
        assert list(HEADING.findall(text))[1:4] == ["Context", "Decision", "Consequences"], page.name


def test_every_link_between_pages_leads_to_a_file_and_a_heading() -> None:
    files = markdown_files()
    assert len(files) > 30
    broken = {str(page.relative_to(ROOT)): found for page in files if (found := broken_links(page))}
    assert broken == {}


def test_a_path_that_does_not_exist_is_found() -> None:
    text = "Paths are relative to `cli/src/codealign/cli/`.\n\n`main.py` and `nowhere.py`, `cli/nowhere/`, `commands/`"
    assert missing_paths(text) == ["nowhere.py", "cli/nowhere/"]


def test_a_link_to_a_missing_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n[a](#one) [b](#two) [c](page.md#one) [d](other.md) [e](https://example.org/x)\n")
    assert broken_links(page) == ["#two", "other.md"]


def selects_nothing(command: tuple[str, str]) -> bool:
    """Whether no test of the file has the word in its name."""
    file, word = command
    names = re.findall(r"^(?:async )?def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return not any(word in name for name in names)


def test_every_command_for_one_test_selects_a_test() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in markdown_files())
    commands = re.findall(r"pytest ([\w/]+\.py) -k (\w+)", text)
    assert commands
    assert not list(filter(selects_nothing, commands))
