"""In-memory fakes of the services behind the coordinator's ports, for tests that run in a single process."""

from __future__ import annotations

from dataclasses import dataclass, field

from codealign.coordinator.ground.ports import Services
from fakes.control import Clock, Control
from fakes.dataset import FakeDataset
from fakes.inference import FakeInference
from fakes.sandbox import FakeSandbox
from fakes.training import FakeTraining

__all__ = ["Clock", "Control", "FakeDataset", "FakeInference", "FakeSandbox", "FakeServices", "FakeTraining"]


@dataclass
class FakeServices:
    """The four fakes that a test scripts; `services` is passed to the coordinator."""

    dataset: FakeDataset = field(default_factory=FakeDataset)
    inference: FakeInference = field(default_factory=FakeInference)
    sandbox: FakeSandbox = field(default_factory=FakeSandbox)
    training: FakeTraining = field(default_factory=FakeTraining)

    @property
    def services(self) -> Services:
        """The fakes as the coordinator's ports."""
        return Services(self.dataset, self.inference, self.sandbox, self.training)
