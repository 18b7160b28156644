"""Registry of pipelines: each subpackage defines one as `PIPELINE`, or several as `PIPELINES`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.common.errors import ConfigurationError, InvalidArgument
from codealign.common.text import unknown
from codealign.coordinator.pipelines.defaults import stage_settings
from codealign.coordinator.pipelines.pipeline import Pipeline
from codealign.coordinator.pipelines.stage import Execution, Seeds, Selection, Stage, Writing

DEFAULT = "selfcodealign"
INTERNAL_ERROR = "internal-error"
"""Reason of a Rejection if reading, judging or selecting an item raised an exception."""
_INTERNAL_ERROR_MEANS = "parsing, judging or selecting it raised an exception; the traceback is kept as evidence"
_ROLES: Mapping[type[Stage], api.StageRole.ValueType] = {
    Seeds: api.STAGE_ROLE_SEEDS,
    Writing: api.STAGE_ROLE_WRITING,
    Execution: api.STAGE_ROLE_EXECUTION,
    Selection: api.STAGE_ROLE_SELECTION,
}


def names() -> list[str]:
    """Return the names of all pipelines, the default first, the others sorted."""
    return sorted(_pipelines(), key=lambda name: (name != DEFAULT, name))


def get(name: str, field: str = "name") -> Pipeline:
    """Return a pipeline by name, the default if the name is empty.

    Args:
        name: The name.
        field: Name of the request field, for the error.

    Raises:
        InvalidArgument: There is no such pipeline; names the valid ones.
        ConfigurationError: A directory in this package is not a pipeline.
    """
    found = _pipelines().get(name or DEFAULT)
    if found is None:
        raise InvalidArgument(field, unknown("pipeline", name, names()))
    return found


def kind_name(kind: pb.Kind.ValueType) -> str:
    """Return a kind of record for people, such as "concept set"."""
    return pb.Kind.Name(kind).removeprefix("KIND_").lower().replace("_", " ")


def describe(pipeline: Pipeline) -> api.Pipeline:
    """Describe a pipeline for clients: its stages with their defaults, properties, reasons and versions."""
    return api.Pipeline(
        name=pipeline.name,
        description=pipeline.description,
        stages=[_described(stage) for stage in pipeline.stages],
        few_shot_sets=pipeline.few_shots.names(),
    )


def _described(stage: Stage) -> api.PipelineStage:
    described = api.PipelineStage(
        name=stage.name,
        role=next(role for base, role in _ROLES.items() if isinstance(stage, base)),
        parent=stage.parent,
        makes=stage.makes,
        title=stage.title,
        description=stage.description,
        reasons={**stage.reasons, INTERNAL_ERROR: _INTERNAL_ERROR_MEANS},
        version=stage.reading_version if isinstance(stage, Writing) else stage.VERSION,
    )
    if isinstance(stage, Writing):
        described.defaults.CopyFrom(stage_settings(stage))
        described.properties.extend(
            pb.PropertyDraw(name=name, values=dict.fromkeys(values)) for name, values in stage.properties.items()
        )
    return described


@cache
def _pipelines() -> Mapping[str, Pipeline]:
    return load(__name__, __path__)


def load(package: str, folders: Iterable[str]) -> Mapping[str, Pipeline]:
    """Return the pipelines of a package by name.

    Args:
        package: The package's name.
        folders: Its directories (`__path__`).

    Raises:
        ConfigurationError: One of its directories is not a pipeline; names it and says why.
    """
    found: dict[str, Pipeline] = {}
    folders = list(folders)
    for folder in (each for parent in folders for each in Path(parent).iterdir()):
        if any(folder.glob("*.py")) and not (folder / "__init__.py").exists():
            raise ConfigurationError(f"pipeline directory {folder.name!r}: __init__.py with a PIPELINE is missing")
    for entry in pkgutil.iter_modules(folders):
        if entry.ispkg:
            for pipeline in _load(f"{package}.{entry.name}", entry.name):
                if pipeline.name in found:
                    raise ConfigurationError(
                        f"pipeline directory {entry.name!r}: pipeline {pipeline.name!r} is defined twice"
                    )
                found[pipeline.name] = pipeline
    return found


def _load(module: str, folder: str) -> Sequence[Pipeline]:
    where = f"pipeline directory {folder!r}"
    try:
        found = vars(importlib.import_module(module))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    except Exception as error:  # raised by the pipeline's code
        raise ConfigurationError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    several = "PIPELINES" in found
    given = found["PIPELINES"] if several else [found.get("PIPELINE")]
    made = [each for each in given if isinstance(each, Pipeline)] if isinstance(given, list | tuple) else []
    if not made or len(made) < len(given) or (several and "PIPELINE" in found):
        raise ConfigurationError(
            f"{where}: __init__.py must define PIPELINE as a Pipeline, or PIPELINES as a list of several"
        )
    for pipeline in made:
        name = pipeline.name.replace("-", "_")
        if name != folder and not (several and name.startswith(f"{folder}_")):
            raise ConfigurationError(
                f"{where}: the directory's name must match {'the beginning of ' if several else ''}the pipeline's name "
                f"{pipeline.name!r}"
            )
    return made
