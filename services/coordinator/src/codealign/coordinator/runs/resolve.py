"""What a run rests on beyond what was given: the models, runners, seeds and benchmark texts that are there."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common.errors import InvalidArgument, NotFound
from codealign.coordinator import pipelines
from codealign.coordinator.ground import runners
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.config import with_defaults

NO_BENCHMARKS = "no benchmark files are set: seeds and rows are not checked for benchmark text"


async def resolved(given: pb.Run, services: Services, benchmarks: BenchmarkTexts) -> tuple[pb.Run, list[str]]:
    """The configuration with everything filled in, and what a person should know.

    Inference is asked for models alone of which no revision is given.

    Raises:
        InvalidArgument: Names every field that is wrong.
        NotFound: The collection holds no seed, or no such model is loaded.
        Unavailable: A service is away, or no runner is ready.
    """
    run = with_defaults(given)
    notes = list(notes_of(benchmarks.sha256))
    run.selection.forbidden_texts_sha256 = benchmarks.sha256
    await _models(run, services)
    run = with_defaults(run)  # a stage's model may be the run's own, now that both have their names
    if pipelines.get(run.pipeline).execution is not None:
        notes += await _execution(run.execution, services)
    await _seeds(run, services)
    return run, notes


def notes_of(benchmarks_sha256: str) -> Iterable[str]:
    """What a person should know of a run before and while it works."""
    if not benchmarks_sha256:
        yield NO_BENCHMARKS


async def _models(run: pb.Run, services: Services) -> None:
    choices = [("config.model", run.model)]
    choices += [
        (f"config.stages[{index}].model", stage.model)
        for index, stage in enumerate(run.stages)
        if stage.HasField("model") and stage.model.model
    ]
    for field, choice in choices:
        if choice.model and choice.revision:
            continue
        try:
            model = (await services.inference.get_model(inf.GetModelRequest(name=choice.model))).model
        except InvalidArgument as error:  # no name, and several are loaded
            raise InvalidArgument(f"{field}.model", error.message) from error
        if choice.revision and choice.revision != model.revision:
            raise InvalidArgument(
                f"{field}.revision",
                f"inference serves {model.name} at revision {model.revision[:12]}, not {choice.revision[:12]}",
            )
        choice.model, choice.revision = model.name, model.revision


async def _seeds(run: pb.Run, services: Services) -> None:
    seeds = pipelines.get(run.pipeline).seeds
    request = ds.ScanRequest(kind=seeds.makes, collection=run.seeds.collection, page_size=1)
    if not (await services.dataset.scan(request)).records:
        raise NotFound(
            f"collection {run.seeds.collection!r} holds no seeds; collect some: codealign seeds collect PATH"
        )


async def _execution(execution: pb.ExecutionSettings, services: Services) -> list[str]:
    """Fill in the runners' image, Python version and limits.

    Where runners differ (a rollout), the run is of those that most slots belong to; of as many, of the higher Python
    version, then of the greater digest.
    """
    ready = runners.ready((await services.sandbox.get_runner(sb.GetRunnerRequest())).runners)
    able = [runner for runner in ready if execution.profile in runner.profiles]
    if not able:
        known = sorted({profile for runner in ready for profile in runner.profiles})
        raise InvalidArgument(
            "config.execution.profile", f"no runner has profile {execution.profile!r}; they have: {', '.join(known)}"
        )
    runner, alike = runners.prevailing(able)
    chosen = runners.image_and_python(runner)
    for name, value in (("image_digest", chosen[0]), ("python_version", chosen[1])):
        if (asked := getattr(execution, name)) not in ("", value):
            raise InvalidArgument(f"config.execution.{name}", f"the runners have {value}, not {asked}: leave it out")
        setattr(execution, name, value)
    _fill_limits(execution, runner)
    if alike:
        return []
    return [f"runners differ: the run is of image {chosen[0][:19]} with Python {chosen[1]}, which most slots have"]


def _fill_limits(execution: pb.ExecutionSettings, runner: sb.Runner) -> None:
    limits = next((each for each in runner.profile_limits if each.profile == execution.profile), None)
    if limits is None:
        return
    wrong: list[tuple[str, str]] = []
    for field in sb.Limits.DESCRIPTOR.fields:
        value, most = getattr(execution.limits, field.name), getattr(limits.maxima, field.name)
        if not value:
            setattr(execution.limits, field.name, getattr(limits.defaults, field.name))
        elif not value > 0 or (most and value > most):  # NaN is neither
            wrong.append((f"config.execution.limits.{field.name}", f"is {value:g}; must be above 0, at most {most:g}"))
    if wrong:
        raise InvalidArgument(violations=wrong)
