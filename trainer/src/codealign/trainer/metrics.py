"""The service's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

RUNNING = Gauge("codealign_trainer_running_trainings", "Trainings running: 0 or 1.")
STEPS = Counter("codealign_trainer_steps_total", "Optimizer steps observed.")
ENDED_TOTAL = Counter("codealign_trainer_ended_trainings_total", "Trainings that ended, by state.", ["state"])
