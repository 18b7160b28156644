"""The services as in-memory fakes behind the coordinator's ports, for tests that need no process but their own."""

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
    """All four, as the test scripts them; `services` is what the coordinator is given."""

    dataset: FakeDataset = field(default_factory=FakeDataset)
    inference: FakeInference = field(default_factory=FakeInference)
    sandbox: FakeSandbox = field(default_factory=FakeSandbox)
    training: FakeTraining = field(default_factory=FakeTraining)

    @property
    def services(self) -> Services:
        """As the coordinator sees them."""
        return Services(self.dataset, self.inference, self.sandbox, self.training)
