"""Format `selfcodealign`: files of SelfCodeAlign's reference implementation, published ones and those of its stages.

Every stage's file repeats the columns of the stage before: `seed`, then `concepts`, `instruction` and `response`. The
published bigcode/self-oss-instruct-sc2-exec-filter-50k has all four, besides `prompt`, `sha1`, `id` and `fingerprint`,
which are not read. A file of unfiltered responses has them in `parsing_result`, several to a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.importing.format import Format, Layout, Node, response
from codealign.cli.importing.formats.rows import seed_of
from codealign.cli.importing.rows import Row, Unusable

_DRAWS = "parsing_result"


class SelfCodeAlign(Format):
    """Seeds, concepts, instructions and responses of the reference, as far as a file has them."""

    name = "selfcodealign"
    description = "files of SelfCodeAlign's reference implementation: seed, concepts, instruction, response"
    VERSION = 1
    roles: ClassVar[Mapping[str, str]] = {
        "seed": "a Python function",
        "concepts": "its concepts: a list, or text with commas",
        "instruction": "the task",
        "response": "the answer with its tests",
        "responses": "several answers: a list of objects with a `response`",
        "license": "licence of the row (SPDX)",
    }
    layouts = (
        Layout(
            "the reference's layout",
            {"seed": "seed"},
            {name: name for name in ("concepts", "instruction", "response", "license")} | {"responses": _DRAWS},
        ),
        Layout(
            "the reference's layout without seeds",
            {"instruction": "instruction"},
            {"concepts": "concepts", "response": "response", "license": "license", "responses": _DRAWS},
        ),
    )

    def needs(self, roles: Collection[str]) -> str:
        """Return what is missing: a seed or an instruction, and the task of a response."""
        if not {"seed", "instruction"} & set(roles):
            return "a seed or an instruction"
        if {"response", "responses"} & set(roles) and "instruction" not in roles:
            return "the instruction of the response"
        return ""

    def nested(self, role: str) -> bool:
        """Return whether a role is read from a list of objects."""
        return role == "responses"

    def read(self, row: Row, columns: Mapping[str, str], license_id: str) -> Sequence[Node]:
        """Return one record for each stage that the row has, and for each response."""
        license_id = (row.optional(columns["license"]) if "license" in columns else "") or license_id
        nodes: list[Node] = []
        concepts: list[str] = []

        def add(body: pb.Seed | pb.ConceptSet | pb.Instruction) -> None:
            nodes.append(Node(body, len(nodes) - 1 if nodes else None))

        if "seed" in columns:
            add(seed_of(row.text(columns["seed"]), row, license_id))
        if "concepts" in columns:
            concepts = row.texts(columns["concepts"])
            if not concepts:
                raise Unusable("empty", "has no concept", columns["concepts"])
            add(pb.ConceptSet(concepts=concepts))
        if "instruction" in columns:
            text = row.text(columns["instruction"]).strip()
            add(pb.Instruction(text=text, concepts=concepts, license=license_id))
        task = len(nodes) - 1
        for text in _responses(row, columns):
            answer = response(text)
            answer.license = license_id
            nodes.append(Node(answer, task))
        return nodes


def _responses(row: Row, columns: Mapping[str, str]) -> Iterator[str]:
    draws = row.fields.get(columns.get("responses", ""))
    if "response" in columns and (draws is None or row.fields.get(columns["response"]) is not None):
        yield row.text(columns["response"])
    elif draws is not None:
        column = columns["responses"]
        if not isinstance(draws, list) or not all(isinstance(draw, dict) for draw in draws):
            raise Unusable("not-text", "must be a list of objects with a `response`", column)
        for draw in draws:
            yield Row(row.file, row.number, draw).text("response")


FORMAT = SelfCodeAlign()
