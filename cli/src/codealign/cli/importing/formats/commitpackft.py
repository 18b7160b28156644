"""Format `commitpackft`: OctoPack's commits (CommitPack and CommitPackFT, arXiv 2308.07124) as editing tasks.

The instruction is the commit's subject with the code before the commit, the response the code after it. The filters are
those of the publication; docs/imports.md says where they differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.importing.format import Format, Layout, Node, is_python
from codealign.cli.importing.rows import Dropped, Row

MIN_TOKENS, MAX_TOKENS = 50, 768
MAX_OLD_CHARACTERS = 50_000
MIN_WORDS = 5
_SUBJECT_CHARACTERS = range(11, 1000)
_BUMPS_DROPPED = 0.9
"""Share of the commits that only raise a version which are dropped."""

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "python": (".py",),
    "java": (".java",),
    "javascript": (".js",),
    "rust": (".rs",),
    "go": (".go",),
    "c++": (".cpp", ".cc", ".cxx", ".hpp", ".h"),
    "c": (".c", ".h"),
    "html": (".html", ".htm"),
    "shell": (".sh", ".bash", ".zsh"),
    "xml": (".xml",),
}
"""File name endings by language. Other languages are not checked."""

_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    abort accelerate accept access accumulate add address adjust advance align allow amend annotate append apply archive
    arrange assert assign attach augment automate avoid backport backup block boost break bring build bump bundle bypass
    cache calculate call capture catch centralize change check choose clarify clean cleanup clear clone close collapse
    collect combine comment compile complete compress compute concatenate configure connect consolidate convert copy
    correct cover create customize cut deal debug declare decrease decrypt default define delay delete deploy deprecate
    describe destroy detach detect determine disable discard display divide document downgrade drop dump duplicate edit
    eliminate embed emit enable encode encrypt enforce enhance ensure enumerate escape establish exclude execute exit
    expand expect expire export expose extend extract factor feed fetch fill filter find finish fix flag flush force
    forbid format forward gather generalize generate get give grant group guard halt handle hide highlight hook ignore
    implement import improve include increase increment indent index inherit initialize inline insert install integrate
    introduce invert invoke isolate join keep kill launch leave let limit link lint list load localize lock log lower
    maintain make manage map mark mask match merge migrate minify mock modernize modify monitor move mute name narrow
    normalize notify obfuscate omit open optimize order organize output overhaul override package parse pass paste patch
    pause perform permit pin place polish port prefer prefix prepare prepend preserve prevent print privatize process
    provide prune publish pull purge push put query quit quote raise read rearrange rebase rebuild recompile reconfigure
    reconnect record rectify redact redefine redesign redirect reduce refactor refer refine reformat refresh register
    reimplement reinforce reject relax release reload relocate remove rename render reorder reorganize repair rephrase
    replace report reposition require reset reshape resolve respect restore restrict restructure retrieve return reuse
    revert revise revoke rewrite rework roll rollback rotate round run sanitize save scale schedule search secure select
    send separate serialize serve set setup shorten show shrink silence simplify skip sort specify speed split stabilize
    standardize start stop store streamline strengthen strip structure style subtract suppress support swap switch sync
    synchronize tag take terminate test throw tidy tighten toggle track transform translate trigger trim truncate try
    tweak unblock uncomment undo unify uninstall unpin update upgrade upload use utilize validate verify wait warn watch
    whitelist wire withdraw wrap write
    """,
    )
)
"""Imperative verbs with which subjects of commits begin."""
_NOTHING = frozenset({"readme", "update", "updated", "dummy", "test", "update readme", "update readme.md"})
_UNWANTED = re.compile(
    r"auto commit|update contributing|<\?xml|merge branch|merge pull request|signed-off-by|cherry picked from commit"
    r"|\b[a-f0-9]{40}\b|\bi\b|\bi'(?:ve|m)\b|thanks to .*\bfor\b|code ?review|\b(?:issue|bug|feature)\s*\d+"
    r"|work in progress|\bwip\b|https?://|\| leetcode|^v?\d+\.\d+\.\d+|^[a-f0-9]+(?:-[a-f0-9]+)*$",
    re.IGNORECASE,
)
_BUMP = re.compile(r"(?:bump|set version|update version)\b", re.IGNORECASE)
_SKIP = re.compile(r"\[(?:skip ci|ci skip)\]", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z]{1,8}|\d|\n[ \t]*|[^\w\s]{1,2}|_|[^\x00-\x7f]")


class CommitPackFt(Format):
    """Commits as tasks of editing code."""

    name = "commitpackft"
    description = "OctoPack's commits: the subject and the old code are the task, the new code is the answer"
    VERSION = 1
    roles: ClassVar[Mapping[str, str]] = {
        "old": "code before the commit",
        "new": "code after the commit",
        "subject": "first line of the commit's message",
        "file": "path of the file after the commit",
        "language": "programming language",
        "license": "licence of the repository (SPDX)",
        "commit": "the commit's hash",
    }
    layouts = (
        Layout(
            "OctoPack's layout",
            {"old": "old_contents", "new": "new_contents", "subject": "subject"},
            {"file": "new_file", "language": "lang", "license": "license", "commit": "commit"},
        ),
    )
    rules: ClassVar[Mapping[str, str]] = {
        "commit.empty": "the file is empty after the commit",
        "commit.unchanged": "the commit changes nothing in the file",
        "commit.too-large": f"the file had {MAX_OLD_CHARACTERS:,} characters or more",
        "commit.other-ending": "the file's name does not end as those of its language",
        "commit.reference": "the subject refers to an issue (#)",
        "commit.file-name": "the subject names the file",
        "commit.subject-length": f"the subject has fewer than {MIN_WORDS} words, or too few or many characters",
        "commit.not-capitalized": "the subject does not begin with a capital letter",
        "commit.tokens": f"old and new code have fewer than {MIN_TOKENS} or more than {MAX_TOKENS} tokens (estimated)",
        "commit.not-imperative": "the subject does not begin with an imperative verb",
        "commit.uninformative": "the subject says nothing about the code, or something about people, issues or links",
        "commit.version-bump": "the commit only raises a version; one in ten is kept",
    }

    def needs(self, roles: Collection[str]) -> str:
        """Return what is missing: the old code, the new code or the subject."""
        missing = [role for role in ("old", "new", "subject") if role not in roles]
        return f"the columns for {' and '.join(missing)}" if missing else ""

    def read(self, row: Row, columns: Mapping[str, str], license_id: str) -> Sequence[Node]:
        """Return the instruction and the response."""
        old, new = row.optional(columns["old"]), row.optional(columns["new"])
        found = {
            role: row.optional(columns[role]) for role in ("file", "language", "license", "commit") if role in columns
        }
        subject = cleaned(row.text(columns["subject"]))
        if rule := dropped_by(old, new, row.text(columns["subject"]), found):
            raise Dropped(rule)
        license_id, language = found.get("license", "") or license_id, found.get("language", "")
        instruction = pb.Instruction(
            text=f"{subject}\n\n{_fenced(old, language)}" if old.strip() else subject,
            language=language,
            license=license_id,
        )
        code = new if is_python(language) else ""
        answer = pb.Response(answer=_fenced(new, language), code=code, license=license_id)
        return [Node(instruction, None), Node(answer, 0)]


def cleaned(subject: str) -> str:
    """Return a subject without marks for other programs: `[ci skip]`, a first `[tag]` or `scope:`, a last `[tag]`."""
    words = _SKIP.sub("", subject).split()
    if words and words[0].startswith("[") and words[0].endswith("]"):
        words = words[1:]
    if words and words[0].endswith(":"):
        words = words[1:]
    if words and words[-1].startswith("[") and words[-1].endswith("]"):
        words = words[:-1]
    return " ".join(words)


def dropped_by(old: str, new: str, subject: str, found: Mapping[str, str]) -> str:
    """Return the first filter that drops a commit, or "".

    Args:
        old: Code before the commit.
        new: Code after the commit.
        subject: First line of the message.
        found: The file's path, the language and the commit's hash, as far as they are known.
    """
    path = PurePosixPath(found.get("file", ""))
    endings = ENDINGS.get(found.get("language", "").lower(), ())
    text = cleaned(subject)
    lowered = text.lower()
    checks = {
        "commit.empty": not new.strip(),
        "commit.unchanged": old == new,
        "commit.too-large": len(old) >= MAX_OLD_CHARACTERS,
        "commit.other-ending": bool(endings and path.suffix) and path.suffix.lower() not in endings,
        "commit.reference": "#" in subject,
        "commit.file-name": bool(path.suffix) and path.stem in subject,
        "commit.subject-length": len(text) not in _SUBJECT_CHARACTERS or len(text.split()) < MIN_WORDS,
        "commit.not-capitalized": not text[:1].isupper(),
        "commit.tokens": not MIN_TOKENS <= estimated_tokens(old) + estimated_tokens(new) <= MAX_TOKENS,
        "commit.not-imperative": lowered.split(" ")[0] not in _VERBS,
        "commit.uninformative": lowered in _NOTHING or bool(_UNWANTED.search(lowered)),
        "commit.version-bump": bool(_BUMP.match(lowered)) and _share(found.get("commit", "") or new) < _BUMPS_DROPPED,
    }
    return next((rule for rule, drops in checks.items() if drops), "")


def estimated_tokens(text: str) -> int:
    """Return an estimate of the tokens of code: pieces of words, digits, pairs of signs, and indented line ends."""
    return sum(1 for _ in _TOKEN.finditer(text))


def _share(text: str) -> float:
    """Return a number from 0 to 1 that depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _fenced(code: str, language: str) -> str:
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language.lower()}\n{code}{'' if code.endswith(chr(10)) else chr(10)}{fence}"


FORMAT = CommitPackFt()
