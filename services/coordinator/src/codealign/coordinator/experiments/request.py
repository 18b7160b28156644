"""Experiment requests: validation of every arm before anything is spent, with all defaults filled in."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import CodeAlignError, InvalidArgument
from codealign.common.text import unknown
from codealign.common.training_settings import violations
from codealign.coordinator.evaluation import request as evaluation
from codealign.coordinator.evaluation.operations import Evaluations
from codealign.coordinator.evaluation.prompts import BASE
from codealign.coordinator.experiments.cells import trained
from codealign.coordinator.ground.faults import TRANSIENT
from codealign.coordinator.ground.ports import Services
from codealign.coordinator.runs import plan
from codealign.coordinator.runs.operations import Runs

MAX_NAME = 200
MAX_CELLS = 1000
_FILLED_IN = "must not be set: it is filled in for every seed"

T = TypeVar("T")
_Violations = list[tuple[str, str]]


class Checks:
    """Validates experiments.

    Args:
        services: The store is used.
        runs: Fills in the arms' runs.
        evaluations: Loads the benchmarks.
    """

    def __init__(self, services: Services, runs: Runs, evaluations: Evaluations) -> None:
        self._services, self._runs, self._evaluations = services, runs, evaluations

    async def completed(self, given: pb.Experiment, path: str = "config") -> pb.Experiment:
        """Return the experiment with every default filled in.

        Args:
            given: The experiment as requested. Its models have names, revisions and sources.
            path: Path of the experiment in the request, for messages.

        Raises:
            InvalidArgument: Names everything that is invalid or impossible, by its path in the request.
            Unavailable: A service that is needed for the checks is unavailable.
        """
        wrong: _Violations = []
        found = pb.Experiment()
        found.CopyFrom(given)
        _check_names(given, path, wrong)
        _check_models(given, path, wrong)
        found.ClearField("evaluations")
        for at, settings in enumerate(given.evaluations):
            found.evaluations.extend(await self._evaluation(settings, f"{path}.evaluations[{at}]", wrong))
        if not given.evaluations:
            wrong.append((f"{path}.evaluations", "name one evaluation at least"))
        for at, arm in enumerate(given.arms):
            _check_arm(given, at, f"{path}.arms[{at}]", wrong)
            if trained(arm):
                await self._run(found, at, f"{path}.arms[{at}]", wrong)
        _check_claims(given, path, wrong)
        if wrong:
            raise InvalidArgument(violations=wrong)
        return found

    async def _evaluation(
        self, given: pb.EvaluationSettings, path: str, wrong: _Violations
    ) -> Sequence[pb.EvaluationSettings]:
        for name in ("model", "prompt_style", "seed"):
            if (name == "model" and given.HasField("model")) or (name != "model" and getattr(given, name)):
                wrong.append((f"{path}.{name}", _FILLED_IN))
        plain = pb.EvaluationSettings()
        plain.CopyFrom(given)
        plain.prompt_style = ""
        try:
            asked = evaluation.checked(plain, path, style=BASE)
        except InvalidArgument as error:
            wrong += error.violations
            return ()
        await _told(self._evaluations.load(asked), f"{path}.benchmarks", wrong)
        filled = evaluation.settings_of(asked)
        filled.ClearField("model")
        filled.prompt_style, filled.seed = "", 0
        return (filled,)

    async def _run(self, experiment: pb.Experiment, at: int, path: str, wrong: _Violations) -> None:
        """Fill in an arm's run."""
        arm = experiment.arms[at]
        before = {each.name for each in experiment.arms[:at] if trained(each)}
        run, before_wrong = pb.Run(), len(wrong)
        run.CopyFrom(arm.run)
        if run.seed:
            wrong.append((f"{path}.run.seed", _FILLED_IN))
        if arm.instructions_of:
            if run.seeds.collection:
                wrong.append((f"{path}.run.seeds.collection", "must not be set with `instructions_of`"))
            if arm.instructions_of not in before or not experiment.seeds:
                return
            run.seeds.collection = "to be made"
        known = {each.model.model: each.model for each in experiment.models}
        for field, choice in [("model", run.model)] + [
            (f"stages[{number}].model", stage.model) for number, stage in enumerate(run.stages) if stage.model.model
        ]:
            if choice.model not in known:
                wrong.append((f"{path}.run.{field}", unknown("model", choice.model, known)))
            else:
                choice.CopyFrom(known[choice.model])
        prepared = await _told(
            self._runs.prepare(run, f"{path}.run.", seeds_exist=not arm.instructions_of), f"{path}.run", wrong
        )
        if prepared is None or len(wrong) > before_wrong:
            return
        arm.run.CopyFrom(prepared[0])
        if arm.instructions_of:
            arm.run.seeds.collection = ""
        elif arm.rows:
            available = await _told(plan.available_of(self._services, arm.run), f"{path}.rows", wrong)
            if available is not None and (told := plan.too_many_rows(arm.rows, arm.run, available)):
                wrong.append((f"{path}.rows", told))


async def _told(work: Awaitable[T], path: str, wrong: _Violations) -> T | None:
    """Return the result, or None after recording why there is none."""
    try:
        return await work
    except InvalidArgument as error:
        wrong += error.violations or [(path, error.message)]
    except TRANSIENT:
        raise
    except CodeAlignError as error:
        wrong.append((path, error.message))
    return None


def _check_names(given: pb.Experiment, path: str, wrong: _Violations) -> None:
    if not _is_name(given.name):
        wrong.append((f"{path}.name", f"must be 1 to {MAX_NAME} printable characters"))
    if not given.arms:
        wrong.append((f"{path}.arms", "name one arm at least"))
    if not given.seeds:
        wrong.append((f"{path}.seeds", "name one seed at least"))
    for at, seed in enumerate(given.seeds):
        if seed in given.seeds[:at]:
            wrong.append((f"{path}.seeds[{at}]", f"duplicate seed {seed}"))
    if len(given.arms) * len(given.seeds) > MAX_CELLS:
        wrong.append(
            (f"{path}.arms", f"{len(given.arms)} arms for {len(given.seeds)} seeds; at most {MAX_CELLS} cells")
        )


def _check_models(given: pb.Experiment, path: str, wrong: _Violations) -> None:
    seen: set[str] = set()
    for at, each in enumerate(given.models):
        for field, value in (("model.model", each.model.model), ("model.revision", each.model.revision)):
            if not value:
                wrong.append((f"{path}.models[{at}].{field}", "must be set"))
        if not each.source:
            wrong.append((f"{path}.models[{at}].source", "must be set: where the model is loaded from"))
        if each.model.model in seen:
            wrong.append((f"{path}.models[{at}].model.model", f"duplicate model {each.model.model!r}"))
        seen.add(each.model.model)


def _check_arm(given: pb.Experiment, at: int, path: str, wrong: _Violations) -> None:
    arm = given.arms[at]
    if not _is_name(arm.name):
        wrong.append((f"{path}.name", f"must be 1 to {MAX_NAME} printable characters"))
    if arm.name in [other.name for other in given.arms[:at]]:
        wrong.append((f"{path}.name", f"duplicate arm {arm.name!r}"))
    models = [each.model.model for each in given.models]
    if arm.model not in models:
        wrong.append((f"{path}.model", unknown("model", arm.model, models)))
    if arm.rows < 0:
        wrong.append((f"{path}.rows", "must not be negative; 0: as many as the smallest arm has"))
    for name in ("model", "model_revision", "dataset", "rows", "seed"):
        if getattr(arm.training, name):
            wrong.append((f"{path}.training.{name}", _FILLED_IN))
    wrong += violations(arm.training, f"{path}.training")
    if not trained(arm):
        for name in ("rows", "instructions_of"):
            if getattr(arm, name):
                wrong.append((f"{path}.{name}", "must not be set for an arm without a run"))
    elif arm.instructions_of:
        before = [other.name for other in given.arms[:at] if trained(other)]
        if arm.instructions_of not in before:
            text = f"must name an arm with a run that is listed before it: {', '.join(before) or 'there is none'}"
            wrong.append((f"{path}.instructions_of", text))


def _check_claims(given: pb.Experiment, path: str, wrong: _Violations) -> None:
    arms = [arm.name for arm in given.arms]
    benchmarks = [name for settings in given.evaluations for name in settings.benchmarks]
    for at, claim in enumerate(given.claims):
        here = f"{path}.claims[{at}]"
        if not claim.statement:
            wrong.append((f"{here}.statement", "must be set"))
        for field in ("better", "than"):
            _check_known(getattr(claim, field), arms, "arm", f"{here}.{field}", wrong)
        if claim.better == claim.than:
            wrong.append((f"{here}.than", "must be another arm than `better`"))
        if claim.benchmark:
            _check_known(claim.benchmark, benchmarks, "benchmark", f"{here}.benchmark", wrong)


def _check_known(name: str, known: Collection[str], what: str, path: str, wrong: _Violations) -> None:
    if name not in known:
        wrong.append((path, unknown(what, name, known)))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()
