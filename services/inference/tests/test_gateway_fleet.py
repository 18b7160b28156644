"""What is to be served, what workers have, and what each has to load or unload: pure parts of the gateway."""

from __future__ import annotations

import itertools

import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from codealign.inference.gateway.fleet import Fleet, require_same
from codealign.inference.gateway.members import Load, Unload, Worker
from codealign.inference.gateway.work import ModelKey
from codealign.inference.wanted import WantedModels

WEEK_MS = 7 * 24 * 3600 * 1000


def model(name: str = "m", revision: str = "a", source: str = "hub/m", slots: int = 8, context: int = 100) -> pb.Model:
    return pb.Model(name=name, revision=revision, source=source, slots=slots, context_length=context)


class Scene:
    """A fleet, its workers' stores, and a clock."""

    def __init__(self, *workers: str) -> None:
        self.fleet = Fleet()
        self.now = 1000.0
        for worker in workers:
            self.fleet.workers[worker] = Worker(worker)

    def has(self, worker: str, *models: pb.Model, wanted: list[pb.WantedModel] | None = None) -> None:
        response = pb.SyncModelsResponse(wanted=wanted or [], models=models)
        self.fleet.report(worker, response, self.now, int(self.now * 1000))

    def plan(self, worker: str) -> Load | Unload | None:
        return self.fleet.plan(worker, self.now)

    def state(self, worker: str, name: str = "m") -> tuple[str, str]:
        replicas = {each.worker: each for each in self.fleet.model(name, self.now).replicas}
        return pb.ReplicaState.Name(replicas[worker].state).removeprefix("REPLICA_STATE_"), replicas[worker].reason


def test_the_models_of_the_workers_are_wanted_after_a_restart_of_the_gateway() -> None:
    scene = Scene("w1", "w2")
    scene.has("w1", model())
    assert scene.fleet.wanted.wanted == [], "the other worker may know what is wanted"
    scene.has("w2")
    scene.has("w1", model())
    assert scene.fleet.key_of("", "model", scene.now) == ModelKey("m", "a")
    assert scene.plan("w2") == Load("m", "hub/m", "a")
    assert scene.plan("w1") is None


def test_what_one_gateway_recorded_another_one_learns_from_a_worker() -> None:
    first, second = Scene("w1"), Scene("w1")
    first.fleet.wanted.record("m", "hub/m", "a", pinned=True, now_ms=5)
    kept = WantedModels()
    kept.merge(first.fleet.wanted.entries, 10)
    second.has("w1", wanted=kept.entries)
    assert second.plan("w1") == Load("m", "hub/m", "a")


def test_a_removed_model_is_not_found_again_and_is_unloaded_where_it_still_is() -> None:
    scene = Scene("w1", "w2")
    for worker in ("w1", "w2"):
        scene.has(worker, model())
    scene.fleet.wanted.remove("m", int(scene.now * 1000))
    scene.has("w2", model())
    assert scene.plan("w2") is None, "another gateway may be about to record that it is wanted again"
    scene.now += 6
    scene.has("w2", model())
    assert scene.plan("w2") == Unload("m")
    with pytest.raises(NotFound, match="no model is loaded"):
        scene.fleet.key_of("m", "model", scene.now)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_merging_gives_the_same_in_every_order(order: tuple[int, ...]) -> None:
    entries = [
        pb.WantedModel(name="m", source="s", revision="a", version=5),
        pb.WantedModel(name="m", source="s", revision="b", version=5),
        pb.WantedModel(name="m", removed=True, version=4),
    ]
    there = WantedModels()
    for place in order:
        there.merge([entries[place]], 10)
        there.merge([entries[place]], 10)
    assert there.entries == [entries[1]]


def test_a_change_wins_over_what_it_replaces_even_if_a_clock_is_behind() -> None:
    there = WantedModels()
    there.record("m", "s", "a", pinned=False, now_ms=500)
    there.remove("m", 100)
    (entry,) = there.entries
    assert (entry.removed, entry.version) == (True, 501)


def test_removed_models_are_forgotten_after_a_week() -> None:
    there = WantedModels()
    there.remove("m", 1000)
    there.merge([], WEEK_MS)
    assert len(there.entries) == 1
    there.merge([], WEEK_MS + 2000)
    assert there.entries == []


def test_a_worker_with_other_weights_is_not_used_and_the_status_names_both_revisions() -> None:
    scene = Scene("w1", "w2", "w3")
    for _ in range(2):
        scene.has("w1", model(revision="a"))
        scene.has("w2", model(revision="a"))
        scene.has("w3", model(revision="b"))
    assert scene.fleet.servers(ModelKey("m", "a"), scene.now) == ["w1", "w2"]
    assert scene.state("w3") == ("REFUSED", "it has revision b of m, not a")
    assert scene.plan("w3") is None, "during an update, what new workers have stays"


def test_a_name_that_two_sources_claim_has_one_of_them_and_the_status_names_both() -> None:
    scene = Scene("w1", "w2")
    for _ in range(2):
        scene.has("w1", model(revision="a"))
        scene.has("w2", model(revision="b", source="elsewhere"))
    state, reason = scene.state("w2")
    assert state == "REFUSED"
    assert "loaded from elsewhere; the model's source is hub/m" in reason


def test_equal_weights_from_another_source_are_the_same_model() -> None:
    scene = Scene("w1", "w2")
    for _ in range(2):
        scene.has("w1", model())
        scene.has("w2", model(source="a mirror"))
    assert scene.fleet.servers(ModelKey("m", "a"), scene.now) == ["w1", "w2"]


def test_a_demanded_revision_replaces_another_one() -> None:
    scene = Scene("w1")
    scene.fleet.wanted.record("m", "hub/m", "a", pinned=True, now_ms=5)
    scene.has("w1", model(revision="b"))
    assert scene.plan("w1") == Unload("m")
    scene.has("w1")
    load = scene.plan("w1")
    assert load == Load("m", "hub/m", "a")
    scene.fleet.workers["w1"].refused(load, "hub/m is revision b, not a", scene.now)
    assert scene.plan("w1") is None
    assert scene.state("w1") == ("REFUSED", "hub/m is revision b, not a")


def test_the_new_revision_takes_over_when_no_worker_has_the_old_one_any_more() -> None:
    scene = Scene("w1", "w2")
    for _ in range(2):
        scene.has("w1", model(revision="a"))
        scene.has("w2", model(revision="a"))
    scene.has("w1", model(revision="b"))
    scene.fleet.workers["w2"].failed("it restarts", scene.now)
    scene.now += 20
    scene.has("w1", model(revision="b"))
    assert scene.fleet.key_of("m", "model", scene.now).revision == "a", "w2 may come back with it"
    scene.now += 20
    scene.has("w1", model(revision="b"))
    assert scene.fleet.key_of("m", "model", scene.now).revision == "b"
    scene.has("w2", model(revision="a"))
    assert scene.state("w2")[0] == "REFUSED"


def test_a_source_with_new_weights_is_loaded_when_nobody_has_the_old_ones() -> None:
    scene = Scene("w1")
    scene.has("w1", wanted=[pb.WantedModel(name="m", source="hub/m", revision="a", version=7)])
    assert scene.plan("w1") == Load("m", "hub/m", "")


def test_a_worker_without_the_memory_says_so_and_is_asked_again_later_and_less_often() -> None:
    scene = Scene("w1", "w2")
    for worker in ("w1", "w2", "w1"):
        scene.has(worker, *([model()] if worker == "w1" else []))
    load = scene.plan("w2")
    assert isinstance(load, Load)
    refusing = scene.fleet.workers["w2"]
    refusing.refused(load, "hub/m needs about 30.0 GB but only 10.0 GB are free", scene.now)
    assert scene.state("w2") == ("REFUSED", "hub/m needs about 30.0 GB but only 10.0 GB are free")
    scene.now += 9
    assert scene.plan("w2") is None
    scene.now += 2
    assert scene.plan("w2") == load
    refusing.refused(load, "still", scene.now)
    scene.now += 15
    assert scene.plan("w2") is None
    scene.now += 6
    assert scene.plan("w2") == load


def test_a_refusal_does_not_keep_the_worker_from_other_models() -> None:
    scene = Scene("w1")
    scene.fleet.wanted.record("big", "hub/big", "a", pinned=True, now_ms=1)
    scene.fleet.wanted.record("small", "hub/small", "b", pinned=True, now_ms=2)
    scene.has("w1")
    load = scene.plan("w1")
    assert isinstance(load, Load)
    assert load.name == "big", "what was wanted first"
    scene.fleet.workers["w1"].refused(load, "does not fit", scene.now)
    assert scene.plan("w1") == Load("small", "hub/small", "b")


def test_garbage_sets_a_worker_aside_at_once_and_errors_after_several_in_a_row() -> None:
    scene = Scene("w1")
    scene.has("w1", model())
    worker = scene.fleet.workers["w1"]
    for _ in range(2):
        worker.misbehaved("INTERNAL: oops", scene.now, certainly=False)
    worker.behaved()
    for _ in range(2):
        worker.misbehaved("INTERNAL: oops", scene.now, certainly=False)
    assert scene.state("w1")[0] == "READY"
    worker.misbehaved("it answered for 'x'", scene.now, certainly=True)
    assert scene.state("w1") == ("UNAVAILABLE", "set aside for 30 s: it answered for 'x'")
    assert scene.fleet.serves("w1", scene.now) == {}
    scene.now += 31
    assert scene.state("w1")[0] == "READY"
    worker.misbehaved("again", scene.now, certainly=True)
    assert scene.state("w1")[1].startswith("set aside for 60 s")


def test_a_model_is_described_by_what_all_its_workers_can_do() -> None:
    scene = Scene("w1", "w2")
    for _ in range(2):
        scene.has("w1", model(slots=8, context=4096))
        scene.has("w2", model(slots=16, context=2048))
    described = scene.fleet.model("m", scene.now)
    assert (described.slots, described.context_length, described.revision) == (24, 2048, "a")
    assert [(each.worker, each.slots) for each in described.replicas] == [("w1", 8), ("w2", 16)]


def test_a_model_whose_workers_are_all_gone_keeps_its_description_and_says_why() -> None:
    scene = Scene("w1")
    scene.has("w1", model())
    scene.fleet.workers["w1"].failed("connection refused", scene.now)
    described = scene.fleet.model("m", scene.now)
    assert (described.context_length, described.slots) == (100, 0)
    assert scene.state("w1") == ("UNAVAILABLE", "connection refused")
    assert scene.fleet.why(ModelKey("m", "a"), scene.now) == "w1: connection refused"


def test_before_any_worker_has_responded_callers_are_told_to_try_again() -> None:
    scene = Scene("w1")
    with pytest.raises(Unavailable, match="not all workers have responded yet: w1: it has not responded yet"):
        scene.fleet.key_of("m", "model", scene.now)


def test_a_configured_model_that_no_worker_has_yet_is_unavailable() -> None:
    scene = Scene("w1")
    scene.fleet.wanted.find("m", "hub/m", "")
    scene.has("w1")
    assert scene.plan("w1") == Load("m", "hub/m", "")
    with pytest.raises(Unavailable, match="w1: it is loading the model"):
        scene.fleet.key_of("", "model", scene.now)
    scene.has("w1", model())
    assert scene.fleet.key_of("", "model", scene.now) == ModelKey("m", "a")


def test_which_model_is_meant_is_refused_as_without_a_gateway() -> None:
    scene = Scene("w1")
    scene.has("w1")
    with pytest.raises(FailedPrecondition, match="no model is loaded: load one with LoadModel"):
        scene.fleet.key_of("", "model", scene.now)
    scene.has("w1", model("m"), model("n"))
    with pytest.raises(InvalidArgument, match="2 models are loaded: name one; loaded: m, n"):
        scene.fleet.key_of("", "model", scene.now)
    with pytest.raises(NotFound, match="model x is not loaded; loaded: m, n"):
        scene.fleet.key_of("x", "model", scene.now)


def test_another_source_or_revision_under_a_name_in_use_is_refused() -> None:
    entry = pb.WantedModel(name="m", source="hub/m", revision="a")
    require_same(entry, "hub/m/", "a")
    with pytest.raises(FailedPrecondition, match="in use by hub/m"):
        require_same(entry, "hub/other", "")
    with pytest.raises(FailedPrecondition, match="at revision a, not b"):
        require_same(entry, "hub/m", "b")


def test_a_refusal_of_another_source_is_not_told_of_the_one_that_is_wanted_now() -> None:
    scene = Scene("w1", "w2")
    scene.has("w2")
    scene.fleet.workers["w1"].refused(Load("m", "hub/wrong", ""), "hub/wrong is no model", scene.now)
    scene.has("w1")
    scene.has("w2", model())
    assert scene.state("w1") == ("LOADING", "")
    assert scene.plan("w1") == Load("m", "hub/m", "a")


def test_a_worker_that_misbehaves_for_weeks_is_still_set_aside() -> None:
    worker, now = Worker("w1"), 0.0
    worker.responded([], [], now)
    for _ in range(2000):
        worker.misbehaved("garbage", now, certainly=True)
        assert "set aside" in worker.problem(now)
        now += 601
