"""Resolution of what a run depends on besides its configuration: models, runners, seeds and benchmark texts."""

from __future__ import annotations

from collections.abc import Iterable

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.api.sandbox.v1 import sandbox_pb2 as sb
from codealign.common import records
from codealign.common.errors import CodeAlignError, InvalidArgument, NotFound
from codealign.coordinator import pipelines
from codealign.coordinator.ground import requests, runners
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.rules.benchmarks import BenchmarkTexts
from codealign.coordinator.runs.checks import has_target, violations
from codealign.coordinator.runs.config import DEFAULT_PROFILE, names_the_same, with_defaults
from codealign.coordinator.runs.strategies import STRATEGIES

NO_BENCHMARKS = "no benchmark files are configured: seeds and rows are not checked for benchmark text"


async def resolved(
    given: pb.Run,
    services: Services,
    benchmarks: BenchmarkTexts,
    wrong: Iterable[tuple[str, str]] = (),
    *,
    path: str = "config.",
    seeds_exist: bool = True,
) -> tuple[pb.Run, list[str]]:
    """Return the configuration with everything filled in, and notes for users.

    Inference is called only for models without a revision.

    Args:
        given: The configuration.
        services: All services except training are used.
        benchmarks: Texts that must not occur in a seed or a row.
        wrong: Invalid fields that the caller has found, to be reported with all others.
        path: Prefix of the configuration's fields in error messages.
        seeds_exist: Check that the collection has seeds. False: another run makes them first.

    Raises:
        InvalidArgument: Names every invalid field.
        NotFound: The collection has no seeds or instructions for the pipeline, or a model is not loaded.
        Unavailable: A service is unavailable, or no runner is ready.
    """
    run = pb.Run()
    run.CopyFrom(given)
    found = [*wrong, *((f"{path}{field}", text) for field, text in violations(given))]
    notes, failed = list[str](), list[CodeAlignError]()
    for part in (_models(run, services, path), _execution(run, services, path)):
        try:
            notes += await part
        except InvalidArgument as error:
            found += error.violations
        except CodeAlignError as error:
            failed.append(error)
    if found:
        raise InvalidArgument(violations=found)
    if failed:
        raise failed[0]
    run.selection.forbidden_texts_sha256 = benchmarks.sha256
    run = with_defaults(run)
    if seeds_exist:
        await _seeds(run, services, path)
    return run, [*notes_of(run), *notes]


def notes_of(run: pb.Run) -> Iterable[str]:
    """Yield notes for users about a full configuration, before and while it works."""
    if not run.selection.forbidden_texts_sha256:
        yield NO_BENCHMARKS
    if has_target(run) and STRATEGIES[run.selection.strategy].draws_all:
        yield (
            f"strategy {run.selection.strategy!r} draws every attempt at every instruction: the target decides only "
            "how many seeds are used"
        )


async def _models(run: pb.Run, services: Services, path: str) -> list[str]:
    """Fill in the names and revisions of the loaded models. A run in which no model writes needs none."""
    name = run.pipeline or pipelines.DEFAULT
    if not run.model.model and name in pipelines.names() and not pipelines.get(name).writing:
        return []
    choices = [(f"{path}model", run.model)]
    choices += [
        (f"{path}stages[{index}].model", stage.model)
        for index, stage in enumerate(run.stages)
        if stage.HasField("model") and stage.model.model and not names_the_same(stage.model, run.model)
    ]
    wrong: list[tuple[str, str]] = []
    for field, choice in choices:
        if choice.model and choice.revision:
            continue
        try:
            model = (await services.inference.get_model(inf.GetModelRequest(name=choice.model))).model
        except InvalidArgument as error:  # no model is named, and several are loaded
            wrong.append((f"{field}.model", error.message))
            continue
        if choice.revision and choice.revision != model.revision:
            served = f"inference serves {model.name} at revision {model.revision[:12]}, not {choice.revision[:12]}"
            wrong.append((f"{field}.revision", served))
        choice.model, choice.revision = model.name, model.revision
    if wrong:
        raise InvalidArgument(violations=wrong)
    return []


async def _seeds(run: pb.Run, services: Services, path: str) -> None:
    """Check that the collection has records for the pipeline. If it is another run's, that run must have ended."""
    seeds, collection = pipelines.get(run.pipeline).seeds, run.seeds.collection
    if seeds.makes != pb.KIND_SEED and records.is_record_id(collection):
        standing = await requests.standing(services.dataset, collection)
        if not standing.settled(repeatable=False):
            raise InvalidArgument(
                f"{path}seeds.collection", f"run {collection[:12]} is still running: wait until it has ended"
            )
    request = ds.ScanRequest(kind=seeds.makes, collection=collection, page_size=1)
    if not (await services.dataset.scan(request)).records:
        raise NotFound(f"collection {collection!r} does not exist or has no {seeds.plural}: {seeds.advice}")


async def _execution(run: pb.Run, services: Services, path: str) -> list[str]:
    """Fill in the runners' image, Python version and limits if the run's pipeline has an execution stage.

    If runners differ (a rollout), the run uses the image and Python version with the most slots; ties are broken by the
    higher Python version, then by the greater digest.
    """
    name, execution = run.pipeline or pipelines.DEFAULT, run.execution
    if name not in pipelines.names() or pipelines.get(name).execution is None:
        return []
    profile = execution.profile or DEFAULT_PROFILE
    ready = runners.ready((await services.sandbox.get_runner(sb.GetRunnerRequest())).runners)
    able = [runner for runner in ready if profile in runner.profiles]
    if not able:
        known = sorted({each for runner in ready for each in runner.profiles})
        raise InvalidArgument(
            f"{path}execution.profile", f"no runner has profile {profile!r}; available profiles: {', '.join(known)}"
        )
    runner, alike = runners.prevailing(able)
    chosen = runners.image_and_python(runner)
    execution.image_digest, execution.python_version = chosen
    limits = next((each for each in runner.profile_limits if each.profile == profile), None)
    if limits is not None:
        _fill_limits(execution.limits, limits, f"{path}execution.limits")
    if alike:
        return []
    return [f"runners differ: the run uses image {chosen[0][:19]} with Python {chosen[1]}, which most slots have"]


def _fill_limits(given: sb.Limits, profile: sb.ProfileLimits, path: str) -> None:
    wrong: list[tuple[str, str]] = []
    for field in sb.Limits.DESCRIPTOR.fields:
        value, most = getattr(given, field.name), getattr(profile.maxima, field.name)
        if not value:
            setattr(given, field.name, getattr(profile.defaults, field.name))
        elif not value > 0 or (most and value > most):  # `not value > 0` also catches NaN
            wrong.append((f"{path}.{field.name}", f"is {value:g}; must be above 0 and at most {most:g}"))
    if wrong:
        raise InvalidArgument(violations=wrong)
