"""`codealign run --rounds`: its settings, following a series from round to round, and where its models come from."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from rich.console import Console

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.coordinator.v1 import coordinator_pb2_grpc as api_grpc
from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.connection import Connection
from codealign.cli.failures import Failure
from codealign.cli.family import Family
from codealign.cli.following import follow
from codealign.cli.lineage import lineage_tree
from codealign.cli.loop_steps import has_settled, outcome
from codealign.cli.origins import Origin, origins_of
from codealign.cli.refusals import refusal
from codealign.cli.run_config import loop_choices, series_of
from codealign.cli.run_file import RunFile, read_run, to_run
from codealign.common.clients import ClientTls
from codealign.common.records import complete

RUNNING, DONE, FAILED = pb.RUN_STATE_RUNNING, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED


def file(tmp_path: Path, text: str) -> RunFile:
    (tmp_path / "run.yaml").write_text(text)
    return read_run("--config", tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("text", "series"),
    [
        ("rounds: 3", pb.RoundSeries(number=3)),
        (
            "rounds: {number: 2, generates: instructions, train_from: previous, stop: {worse_p: 0, diversity: 0.8}}",
            pb.RoundSeries(
                *(),
                number=2,
                generates="instructions",
                train_from="previous",
                stop=pb.StopRules(worse_p=0.0, diversity=0.8),
            ),
        ),
        ("seed: 1", None),
    ],
)
def test_a_run_file_asks_for_rounds_with_a_number_or_all_settings(
    tmp_path: Path, text: str, series: pb.RoundSeries | None
) -> None:
    given = file(tmp_path, text)
    assert series_of(None, given) == series
    assert "rounds" not in given.settings
    to_run(given.settings)


def test_the_option_wins_over_the_file_and_keeps_its_other_settings(tmp_path: Path) -> None:
    given = file(tmp_path, "rounds: {number: 2, train_from: previous}")
    assert series_of(4, given) == pb.RoundSeries(number=4, train_from="previous")
    assert series_of(4, RunFile()) == pb.RoundSeries(number=4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rounds: many", "line 1: rounds: must be a whole number, is 'many'"),
        ("rounds: [2]", "line 1: rounds: must be a mapping, is a list"),
        ("rounds:\n  number: 2\n  generate: all", "line 3: rounds.generate: unknown; did you mean generates?"),
        ("rounds: {number: 2, loop: {}}", "line 1: rounds.loop: unknown"),
        ("round: 2", "line 1: round: unknown; did you mean rounds?"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Failure) as caught:
        file(tmp_path, text)
    assert says in caught.value.message


def test_the_coordinators_complaint_names_the_files_key_and_line(tmp_path: Path) -> None:
    given = file(tmp_path, "seed: 1\nrounds: 0\n")
    wrong = [("series.number", "is 0; must be from 1 to 100 rounds")]
    assert refusal(pb.Run(), wrong, given).message == (
        "invalid run settings: rounds.number: is 0; must be from 1 to 100 rounds "
        f"(--config {tmp_path / 'run.yaml'}, line 2)"
    )


def test_rounds_need_the_evaluation_and_its_benchmarks() -> None:
    spec = training.TrainingSpec()
    assert loop_choices("default", "evaluation", spec, (), None).with_rounds().benchmarks_named
    with pytest.raises(Failure, match="--until training: a series of rounds needs --until evaluation"):
        loop_choices("default", "training", spec, (), None).with_rounds()


def status(number: int, state: pb.RunState.ValueType, *begun: int, run: pb.RunState.ValueType = DONE) -> api.RunStatus:
    """Return the status of a round's run in a series in this state, of which these rounds have begun."""
    found = api.RunStatus(id=str(number) * 32, state=run)
    found.series.state = state
    found.series.config.number = 2
    for one in begun:
        found.series.rounds.add(number=one, run=str(one) * 32)
    return found


@pytest.mark.parametrize(
    ("given", "settled", "result"),
    [
        (status(1, RUNNING), False, RUNNING),
        (status(1, RUNNING, 1), False, RUNNING),
        (status(1, RUNNING, 1, 2), True, RUNNING),
        (status(2, RUNNING, 1, 2), False, RUNNING),
        (status(2, DONE, 1, 2), True, DONE),
        (status(1, FAILED, 1), True, FAILED),
    ],
)
def test_a_rounds_run_is_watched_until_the_next_round_or_the_end(
    given: api.RunStatus, settled: bool, result: pb.RunState.ValueType
) -> None:
    assert (has_settled(given), outcome(given)) == (settled, result)


class Coordinator(api_grpc.CoordinatorServiceServicer):
    """A series of two rounds."""

    async def WatchRun(self, request: api.WatchRunRequest, context: object) -> AsyncIterator[api.WatchRunResponse]:
        if request.run == "1" * 32:
            yield api.WatchRunResponse(run=status(1, RUNNING, 1, run=RUNNING))
            yield api.WatchRunResponse(run=status(1, RUNNING, 1, 2))
        else:
            yield api.WatchRunResponse(run=status(2, RUNNING, 1, 2, run=RUNNING))
            yield api.WatchRunResponse(run=status(2, DONE, 1, 2))


async def test_a_series_is_followed_from_round_to_round() -> None:
    server = grpc.aio.server()
    api_grpc.add_CoordinatorServiceServicer_to_server(Coordinator(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = Connection({"coordinator": f"127.0.0.1:{port}"}, ClientTls(), started=False)
    with contextlib.closing(io.StringIO()) as told:
        try:
            last = await follow(connection, "1" * 32, Console(file=told, width=100))
        finally:
            await connection.clients.close()
            await server.stop(0)
        assert (last.id, last.series.state) == ("2" * 32, DONE)
        assert f"round 2 of 2: run {'2' * 12}" in told.getvalue()


def checkpoint(revision: str, version: str) -> pb.Record:
    made = pb.Checkpoint(revision=revision, dataset_version=version, base_revision="base-revision")
    return complete(pb.Record(kind=pb.KIND_CHECKPOINT, checkpoint=made))


def run_by(revision: str, seed: int) -> pb.Record:
    return complete(
        pb.Record(kind=pb.KIND_RUN, run=pb.Run(seed=seed, model=pb.ModelChoice(model="m", revision=revision)))
    )


class Store:
    """A connection to a store with checkpoints, versions and runs."""

    def __init__(self, checkpoints: list[pb.Record], runs: dict[str, pb.Record]) -> None:
        self._checkpoints, self._runs = checkpoints, runs
        self.clients = SimpleNamespace(dataset=SimpleNamespace(GetVersion="version", Get="get"))

    async def scan(self, request: ds.ScanRequest) -> AsyncIterator[pb.Record]:
        for record in self._checkpoints:
            yield record

    async def call(self, method: str, request: Any) -> Any:
        if method == "version":
            if request.name not in self._runs:
                raise Failure(f"no version {request.name}")
            return ds.GetVersionResponse(version=ds.Version(collection=self._runs[request.name].id))
        return ds.GetResponse(records=[run for run in self._runs.values() if run.id in request.ids])


async def test_the_models_behind_a_row_lead_back_through_versions_and_runs() -> None:
    runs = {"v-1": run_by("base-revision", 1), "v-2": run_by("tuned-1", 2)}
    store: Any = Store([checkpoint("tuned-1", "v-1"), checkpoint("tuned-2", "v-2"), checkpoint("other", "v-2")], runs)
    found = await origins_of(store, {"tuned-2", "base-revision"})
    assert {revision: (origin.number, origin.version) for revision, origin in found.items()} == {
        "tuned-2": (2, "v-2"),
        "tuned-1": (1, "v-1"),
    }
    assert found["tuned-2"].run == runs["v-2"]


async def test_a_service_that_is_away_is_told_and_not_taken_for_a_missing_version() -> None:
    class Away(Store):
        async def call(self, method: str, request: Any) -> Any:
            nothing = grpc.aio.Metadata()
            raise Failure("no answer") from grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing)

    store: Any = Away([checkpoint("tuned", "v-1")], {})
    with pytest.raises(Failure, match="no answer"):
        await origins_of(store, {"tuned"})


async def test_a_version_of_another_store_and_a_cycle_end_the_chain() -> None:
    store: Any = Store([checkpoint("tuned", "gone")], {})
    assert [(one.run, one.number) for one in (await origins_of(store, {"tuned"})).values()] == [(None, 1)]
    store = Store([checkpoint("tuned", "v-1")], {"v-1": run_by("tuned", 1)})
    assert [one.number for one in (await origins_of(store, {"tuned"})).values()] == [2]


def test_lineage_says_on_which_version_and_in_which_round_the_writing_model_was_tuned() -> None:
    response = pb.Record(kind=pb.KIND_RESPONSE, response=pb.Response(answer="a", code="x = 1"))
    response.provenance.model, response.provenance.model_revision = "m-tuned", "tuned-2"
    family = Family(complete(response).id, {response.id: response})
    assert family.models() == {"tuned-2"}
    run = run_by("tuned-1", 2)
    origins = {
        "tuned-1": Origin(checkpoint("tuned-1", "v-1\x1b[31m"), None, 1),
        "tuned-2": Origin(checkpoint("tuned-2", "v-2"), run, 2),
    }
    told = io.StringIO()
    Console(file=told, width=200, color_system=None).print(lineage_tree(family, origins=origins))
    text = told.getvalue()
    assert f"written by the model tuned on v-2 in round 2 (run {run.id[:12]})" in text
    first, second = text[text.index("models that were tuned here:") :].strip().splitlines()[1:]
    assert first.startswith(f"  tuned-2: tuned on v-2 in round 2 (run {run.id[:12]}), checkpoint ")
    assert "in round 1 (by a run that is not in this store)" in second
    assert "\x1b" not in text
