"""Help texts that repeat what the services know: names, choices and defaults are the services' own."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import typer

from codealign.api.training.v1 import training_pb2 as training
from codealign.cli.main import app
from codealign.common import training_settings
from codealign.coordinator import pipelines
from codealign.coordinator.runs.strategies import STRATEGIES
from codealign.inference.settings import InferenceSettings
from codealign.trainer import specification

DEFAULTS = specification.completed(training.TrainingSpec(model="m", dataset="d"), "cpu")


def help_of(command: str, option: str) -> str:
    group: Any = typer.main.get_command(app)
    found = [one for one in group.commands[command].params if option in one.opts]
    assert len(found) == 1
    return str(found[0].help)


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("run", "--strategy", STRATEGIES),
        ("run", "--pipeline", [pipelines.DEFAULT]),
        ("run", "--engine", get_args(InferenceSettings.model_fields["engine"].annotation)),
        ("train", "--schedule", training_settings.SCHEDULES),
        ("train", "--optimizer", training_settings.OPTIMIZERS),
        ("train", "--sharding", training_settings.SHARDINGS),
        ("train", "--dtype", training_settings.DTYPES),
    ],
)
def test_help_names_every_choice_of_the_service(command: str, option: str, names: list[str]) -> None:
    words = set(re.findall(r"[a-z0-9][a-z0-9-]*", help_of(command, option)))
    assert set(names) <= words


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("--learning-rate", "0: 1e-5"),
        ("--epochs", f"0: {DEFAULTS.epochs:g}"),
        ("--batch-size", f"0: {DEFAULTS.batch_size}"),
        ("--max-length", f"0: {DEFAULTS.max_length:,}"),
        ("--workers", f"0: {DEFAULTS.workers}"),
        ("--checkpoint-steps", f"0: {DEFAULTS.checkpoint_steps}"),
        ("--warmup", f"Default: {DEFAULTS.warmup_ratio:g}"),
        ("--schedule", f"{DEFAULTS.schedule} (the default)"),
        ("--optimizer", f"{DEFAULTS.optimizer} (the default)"),
        ("--sharding", f"{DEFAULTS.sharding} (the default)"),
    ],
)
def test_help_states_the_training_services_default(option: str, default: str) -> None:
    assert DEFAULTS.learning_rate == 1e-5
    assert default in help_of("train", option)
