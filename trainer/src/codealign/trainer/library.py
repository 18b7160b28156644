"""Trainings on disk: one directory each, which outlives the service.

<data_dir>/trainings/<id>/  state.json    the service's state
                            job.json      the program's job
                            progress.jsonl, outcome.json, log.txt, checkpoints/, model/    the program's output
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from codealign.api.dataset.v1 import records_pb2 as records
from codealign.api.training.v1 import training_pb2 as api
from codealign.common.errors import ConfigurationError, NotFound, ResourceExhausted
from codealign.common.logs import get_logger
from codealign.trainer.sft.job import Job
from codealign.trainer.sft.progress import ProgressReader, thinned

log = get_logger(__name__)

ENDED = frozenset({api.TRAINING_STATE_SUCCEEDED, api.TRAINING_STATE_FAILED, api.TRAINING_STATE_CANCELLED})


@dataclass
class Entry:
    """A training as the service knows it."""

    training: api.Training
    job: Job
    config: records.Record
    """The StageConfig record that the Checkpoint record refers to."""
    deaths: int = 0
    """Number of times its process died since it was submitted."""
    reader: ProgressReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = ProgressReader(self.job.progress_file)
        self.refresh()

    @property
    def ended(self) -> bool:
        """Whether the training has ended."""
        return self.training.state in ENDED

    def note(self, text: str) -> None:
        """Add a note unless it is already there."""
        if text not in self.training.notes:
            self.training.notes.append(text)

    def refresh(self) -> bool:
        """Read new progress of the program; return whether there was any."""
        if not self.reader.read():
            return False
        progress, training = self.reader.progress, self.training
        training.step, training.total_steps = progress.step, progress.total_steps
        training.rows, training.truncated_rows = progress.rows, progress.truncated_rows
        training.trained_tokens = progress.trained_tokens
        training.tokens_per_second = progress.tokens_per_second
        training.checkpoint_step = progress.checkpoint_step
        training.ClearField("seconds_left")
        if progress.seconds_left is not None and not self.ended:
            training.seconds_left = progress.seconds_left
        if progress.points:
            training.loss, training.learning_rate = progress.points[-1].loss, progress.points[-1].learning_rate
        del training.losses[:]
        training.losses.extend(
            api.LossPoint(step=point.step, loss=point.loss, learning_rate=point.learning_rate)
            for point in thinned(progress.points)
        )
        for text in progress.notes:
            self.note(text)
        return True


class Library:
    """Reads and writes trainings on disk.

    Args:
        data_dir: The service's data directory.

    Raises:
        ConfigurationError: The directory cannot be created.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / "trainings"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"CODEALIGN_TRAINER_DATA_DIR {data_dir}: {error.strerror}") from None

    def folder(self, training_id: str) -> Path:
        """Return a training's directory."""
        return self._folder / training_id

    def load(self) -> list[Entry]:
        """Return all trainings, oldest first; log and skip unreadable directories."""
        found = []
        for folder in self._folder.iterdir():
            try:
                found.append(_read(folder))
            except (OSError, ValueError, KeyError, json_format.ParseError) as error:
                log.warning("training_unreadable", folder=str(folder), error=str(error))
        return sorted(found, key=lambda entry: entry.training.created_at.ToNanoseconds())

    def read(self, training_id: str) -> Entry | None:
        """Return a training, or None if it does not exist or is incomplete."""
        try:
            return _read(self.folder(training_id))
        except (OSError, ValueError, KeyError, json_format.ParseError):
            return None

    def save(self, entry: Entry) -> None:
        """Write a training's state atomically.

        Raises:
            ResourceExhausted: The disk is full.
        """
        folder = self.folder(entry.training.id)
        kept = api.Training()
        kept.CopyFrom(entry.training)
        del kept.losses[:]  # the progress file has them
        state: dict[str, Any] = {
            "training": json_format.MessageToDict(kept, preserving_proto_field_name=True),
            "config": json_format.MessageToDict(entry.config, preserving_proto_field_name=True),
            "deaths": entry.deaths,
        }
        try:
            folder.mkdir(exist_ok=True)
            _replace(folder / "job.json", entry.job.model_dump_json(indent=1))
            _replace(folder / "state.json", json.dumps(state, indent=1, sort_keys=True))
        except OSError as error:
            raise ResourceExhausted(f"the training's state cannot be written: {error}", retry_after=30.0) from error

    def fetch(self, training_id: str) -> None:
        """Fetch what the program has written; nothing to do on a shared volume."""

    def result_url(self, entry: Entry) -> str:
        """Return the URL of the trained model."""
        return entry.job.result.as_uri()

    def has_result(self, entry: Entry) -> bool:
        """Return whether the trained model exists."""
        return entry.job.result.is_dir()

    def remove_outcome(self, entry: Entry) -> None:
        """Remove the outcome, so that the training counts as unfinished."""
        entry.job.outcome_file.unlink(missing_ok=True)

    def remove_checkpoints(self, entry: Entry) -> None:
        """Remove the checkpoints."""
        shutil.rmtree(entry.job.checkpoints, ignore_errors=True)

    def remove(self, training_id: str) -> None:
        """Remove all files of a training.

        Raises:
            OSError: Some files could not be removed.
        """
        if self.folder(training_id).is_dir():
            shutil.rmtree(self.folder(training_id))


def no_such(training_id: str) -> NotFound:
    """Return the error for a training that does not exist."""
    return NotFound(f"training {training_id or '(empty id)'} does not exist: see ListTrainings")


def _read(folder: Path) -> Entry:
    state = json.loads((folder / "state.json").read_bytes())
    return Entry(
        training=json_format.ParseDict(state["training"], api.Training()),
        job=Job.model_validate_json((folder / "job.json").read_bytes()),
        config=json_format.ParseDict(state["config"], records.Record()),
        deaths=int(state["deaths"]),
    )


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".partial")
    draft.write_text(text)
    draft.replace(path)
