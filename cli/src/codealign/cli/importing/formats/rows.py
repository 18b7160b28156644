"""Format `rows`: any JSON Lines or Parquet file with instructions in one column and, mostly, responses in another."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.importing.format import Format, Layout, Node, is_python, response
from codealign.cli.importing.rows import Row
from codealign.common.foreign_python import without_warnings

_FURTHER = {"license": "license", "tests": "tests", "concepts": "concepts"}


class Rows(Format):
    """One instruction per row, and its response."""

    name = "rows"
    description = "JSON Lines or Parquet with named columns; common layouts are recognized"
    VERSION = 1
    roles: ClassVar[Mapping[str, str]] = {
        "instruction": "the task",
        "input": "text appended to the task, if not empty",
        "response": "the answer; without it, only instructions are imported",
        "tests": "Python tests, if the answer does not hold them",
        "seed": "code that inspired the task",
        "concepts": "concepts of the seed: a list, or text with commas",
        "category": "function, class or program",
        "difficulty": "easy, medium or hard",
        "language": "programming language; only Python can be executed",
        "license": "licence of the row (SPDX)",
    }
    layouts = (
        Layout(
            "OSS-Instruct's layout",
            {"instruction": "problem", "response": "solution"},
            {"language": "lang", "seed": "seed", **_FURTHER},
        ),
        Layout(
            "Alpaca's layout, as in Evol-Instruct",
            {"instruction": "instruction", "response": "output"},
            {"input": "input", "language": "lang", **_FURTHER},
        ),
        Layout(
            "instruction and response",
            {"instruction": "instruction", "response": "response"},
            {"language": "lang", "seed": "seed", "category": "category", "difficulty": "difficulty", **_FURTHER},
        ),
        Layout("prompt and completion", {"instruction": "prompt", "response": "completion"}, _FURTHER),
        Layout("prompt and response", {"instruction": "prompt", "response": "response"}, _FURTHER),
        Layout("question and answer", {"instruction": "question", "response": "answer"}, _FURTHER),
        Layout("query and answer", {"instruction": "query", "response": "answer"}, _FURTHER),
        Layout("instructions alone", {"instruction": "instruction"}, {"language": "lang", **_FURTHER}),
    )

    def needs(self, roles: Collection[str]) -> str:
        """Return what is missing: the instruction."""
        return "" if "instruction" in roles else "an instruction"

    def read(self, row: Row, columns: Mapping[str, str], license_id: str) -> Sequence[Node]:
        """Return the seed and the concepts if the row has them, the instruction, and the response."""
        found = {role: row.optional(column) for role, column in columns.items() if role != "concepts"}
        found["instruction"] = row.text(columns["instruction"])
        concepts = row.texts(columns["concepts"]) if "concepts" in columns else []
        license_id = found.get("license", "") or license_id
        language = found.get("language", "")
        nodes: list[Node] = []
        if found.get("seed", "").strip():
            nodes.append(Node(seed_of(found["seed"], row, license_id), None))
        if nodes and concepts:
            nodes.append(Node(pb.ConceptSet(concepts=concepts), 0))
        added = found.get("input", "").strip()
        instruction = pb.Instruction(
            text=f"{found['instruction'].strip()}\n\n{added}" if added else found["instruction"].strip(),
            category=found.get("category", ""),
            difficulty=found.get("difficulty", ""),
            language=language,
            concepts=concepts,
            license=license_id,
        )
        nodes.append(Node(instruction, len(nodes) - 1 if nodes else None))
        if "response" in columns:
            answer = response(row.text(columns["response"]), found.get("tests", ""), python=is_python(language))
            answer.license = license_id
            nodes.append(Node(answer, len(nodes) - 1))
        return nodes


def seed_of(code: str, row: Row, license_id: str) -> pb.Seed:
    """Return a seed, named by its first function if it has one. Its place is the file; rows are no lines of code."""
    name, docstring = "", ""
    try:
        with without_warnings():
            tree = ast.parse(code)
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if found:
            name, docstring = found[0].name, ast.get_docstring(found[0]) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass  # seeds of other methods need not be Python
    docstring = docstring.encode("utf-8", "backslashreplace").decode()
    return pb.Seed(code=code, name=name, docstring=docstring, path=row.file, license=license_id)


FORMAT = Rows()
