"""Metrics of trainings, from the training service or, in a cluster, from the operator, which follows them there.

The gauges of a training keep their last values when it ends, so that a short one is seen too. They are labelled by the
base model, so that their number stays bounded: of two trainings of one model, the one that reported last is shown.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from codealign.trainer.library import Entry

RUNNING = Gauge("codealign_trainer_running_trainings", "Trainings that this process follows while they run")
ENDED = Counter("codealign_trainer_ended_trainings_total", "Trainings that ended", ["state"])
STEPS = Counter("codealign_trainer_steps_total", "Optimizer steps")
TOKENS = Counter("codealign_trainer_tokens_total", "Tokens trained on")
RESTARTS = Counter("codealign_trainer_restarts_total", "Restarts of a training program from its last checkpoint")
STEP = Gauge("codealign_trainer_step", "Last step of the last training", ["model"])
TOTAL_STEPS = Gauge("codealign_trainer_planned_steps", "Steps that the last training takes in all", ["model"])
LOSS = Gauge("codealign_trainer_loss", "Loss of the last training's last step", ["model"])
TOKEN_RATE = Gauge(
    "codealign_trainer_tokens_per_second",
    "Throughput of the running training, as its program reports it; 0 once it has ended",
    ["model"],
)
for _state in ("succeeded", "failed", "cancelled"):
    ENDED.labels(_state)


class TrainingMeter:
    """The metrics of one running training.

    Args:
        entry: The training; what it has done so far is not counted.
    """

    def __init__(self, entry: Entry) -> None:
        self._model = entry.job.model_name
        self._step, self._tokens, self._starts = _done(entry)
        RUNNING.inc()

    def update(self, entry: Entry) -> None:
        """Count the progress since the last update."""
        training = entry.training
        step, tokens, starts = _done(entry)
        STEPS.inc(max(0, step - self._step))
        TOKENS.inc(max(0, tokens - self._tokens))
        RESTARTS.inc(max(0, starts - max(1, self._starts)))
        self._step, self._tokens, self._starts = step, tokens, starts
        if training.total_steps:
            TOTAL_STEPS.labels(self._model).set(training.total_steps)
            STEP.labels(self._model).set(step)
        if training.losses:
            LOSS.labels(self._model).set(training.loss)
            TOKEN_RATE.labels(self._model).set(training.tokens_per_second)

    def end(self) -> None:
        """Count the training as no longer running."""
        RUNNING.dec()
        TOKEN_RATE.labels(self._model).set(0)


def _done(entry: Entry) -> tuple[int, int, int]:
    return entry.training.step, entry.training.trained_tokens, entry.reader.progress.starts
