"""The identity of records."""

from __future__ import annotations

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common import records


def test_every_stage_has_a_body() -> None:
    stages = {value for value in pb.Kind.values() if value}
    assert set(records.BODY_OF_KIND) == stages
    fields = {field.name for field in pb.Record.DESCRIPTOR.oneofs_by_name["body"].fields}
    assert set(records.BODY_OF_KIND.values()) == fields


def test_a_root_is_its_content_and_a_child_is_not() -> None:
    one = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="a")))
    two = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="b")))
    assert one.id != two.id
    children = [
        records.complete(
            pb.Record(kind=pb.KIND_RESPONSE, parents=[one.id], stage_config_id="c", response=pb.Response(answer=text))
        )
        for text in "xy"
    ]
    assert children[0].id == children[1].id
    assert children[0].content_hash != children[1].content_hash


def test_everything_that_determines_a_record_changes_its_id() -> None:
    base = records.derive_id(pb.KIND_RESPONSE, ["p"], attempt=0, stage_config_id="c")
    others = [
        records.derive_id(pb.KIND_INSTRUCTION, ["p"], attempt=0, stage_config_id="c"),
        records.derive_id(pb.KIND_RESPONSE, ["q"], attempt=0, stage_config_id="c"),
        records.derive_id(pb.KIND_RESPONSE, ["p", "q"], attempt=0, stage_config_id="c"),
        records.derive_id(pb.KIND_RESPONSE, ["p"], attempt=1, stage_config_id="c"),
        records.derive_id(pb.KIND_RESPONSE, ["p"], attempt=0, stage_config_id="c", key="1"),
        records.derive_id(pb.KIND_RESPONSE, ["p"], attempt=0, stage_config_id="d"),
    ]
    assert len({base, *others}) == 7


def test_ids_never_change() -> None:
    """A change here would invalidate the ids in every existing store."""
    seed = records.complete(pb.Record(kind=pb.KIND_SEED, seed=pb.Seed(code="def f(x): return x", path="a.py", line=3)))
    assert seed.id == "0eb4bf0809f5904c92c7888bb0a8cbb0"
    assert records.seed_for("a", 1) == 2854346579472605236
