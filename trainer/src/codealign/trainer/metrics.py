"""The service's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

RUNNING = Gauge("codealign_trainer_running_trainings", "Trainings that run now: 0 or 1.")
STEPS = Counter("codealign_trainer_steps_total", "Optimizer steps that were followed.")
ENDED_TOTAL = Counter("codealign_trainer_ended_trainings_total", "Trainings that ended, by state.", ["state"])
