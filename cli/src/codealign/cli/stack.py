"""Which services one machine runs, and with which settings."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.child import ServiceSpec, service_command
from codealign.cli.enums import value_names
from codealign.cli.failures import Failure
from codealign.cli.home import Home

SERVICES = ("dataset", "sandbox", "inference", "coordinator", "training")
"""All of them, in the order in which they are shown."""
_PACKAGES = {"training": "trainer"}
"""Of the services whose package has another name."""
DATA_SERVICES = SERVICES[:4]
"""What a run needs."""

MODEL_SECONDS = 3600.0
"""Loading a model may take so long: a big one comes over the network first."""
SANDBOX_SECONDS = 600.0
"""The first start of the sandbox may fetch gVisor and builds its file system."""

VLLM_PYTHON = "CODEALIGN_VLLM_PYTHON"
"""Names the interpreter of vLLM's environment."""

ISOLATIONS = tuple(name.lower() for name in value_names(sandbox.Isolation.DESCRIPTOR))
PROCESS = "process"
ISOLATION = "CODEALIGN_SANDBOX_ISOLATION"
PROFILE = "CODEALIGN_SANDBOX_PROFILE"
WITHOUT_ISOLATION = (
    "isolation=process: programs run WITHOUT gVisor, as ordinary processes of this machine. For debugging only: run "
    "nothing that you have not read. Verdicts made so never enter a published version."
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_URL = re.compile(r"[a-z][a-z0-9+]*://")


@dataclass(frozen=True)
class Options:
    """What a person may choose about the services."""

    model: str = ""
    """A hub id, a folder, or an artifact URL. Empty: the inference service's default."""
    engine: str = ""
    """"transformers", "replay", "simulated", ... Empty: the inference service's default."""
    recording: Path | None = None
    """What the engine `replay` answers from."""
    record: Path | None = None
    """Write every completion to this file, for `replay`."""
    benchmarks: Path | None = None
    """A file or a folder of benchmark tasks: their texts must not occur in the data, and models are evaluated on
    them."""
    isolation: str = ""
    """"gvisor" or "process". Empty: the sandbox service's default, gVisor."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the inference service by their names; its environment wins."""

    def check(self) -> None:
        """Find what cannot work before anything is started.

        Raises:
            Failure: Names the option.
        """
        if self.isolation and self.isolation not in ISOLATIONS:
            raise Failure(f"--isolation: must be {' or '.join(ISOLATIONS)}, is {self.isolation!r}")
        if self.engine == "replay" and self.recording is None:
            raise Failure("--engine replay needs --recording FILE: the completions that it answers from")
        if self.recording is not None and self.engine != "replay":
            raise Failure("--recording is what `--engine replay` answers from: give both, or neither")
        if self.recording is not None and not self.recording.is_file():
            raise Failure(f"--recording: no such file: {self.recording}")
        if self.recording is not None and self.record is not None:
            raise Failure("--record: a replay cannot be recorded: leave it out")
        if self.benchmarks is not None and not self.benchmarks.exists():
            raise Failure(f"--benchmarks: no such file or folder: {self.benchmarks}")
        if self.record is not None and not self.record.resolve().parent.is_dir():
            raise Failure(f"--record: no such folder: {self.record.resolve().parent}")
        self._source()
        self.interpreter()

    def warning(self) -> str:
        """What a person must know before anything is started. Empty: nothing."""
        chosen = self.isolation or os.environ.get(ISOLATION, "")
        return WITHOUT_ISOLATION if chosen == PROCESS else ""

    def sandbox(self) -> dict[str, str]:
        """The sandbox service's environment."""
        # Solutions of benchmarks may import numpy. Runs ask for profile `default`, which does not have it.
        has_numpy = PROFILE not in os.environ and importlib.util.find_spec("numpy") is not None
        chosen = {PROFILE: "numpy"} if has_numpy else {}
        return chosen | ({ISOLATION: self.isolation} if self.isolation else {})

    def interpreter(self) -> str:
        """Of the inference service: vLLM's pins fight with everyone else's, so it lives in an environment of its own.

        Raises:
            Failure: There is no such environment.
        """
        if self.engine != "vllm" or importlib.util.find_spec("vllm") is not None:
            return sys.executable
        chosen = Path(os.environ.get(VLLM_PYTHON) or Path(sys.prefix).parent / ".venv-vllm/bin/python")
        if not chosen.is_file():
            raise Failure(
                f"--engine vllm: {chosen} does not exist: `make setup-vllm` builds vLLM's environment, or name another "
                f"environment's interpreter with {VLLM_PYTHON}"
            )
        return str(chosen)

    def inference(self) -> dict[str, str]:
        """The inference service's environment."""
        prefix = "CODEALIGN_INFERENCE_"
        further = {prefix + name.upper(): str(value) for name, value in self.settings.items()}
        # Threads that spin while they wait take the processors from the sandbox beside them: on two cores an evaluation
        # of nano took 98 s with spinning, 80 s without.
        further["OMP_WAIT_POLICY"] = "PASSIVE"
        chosen = {
            "ENGINE": self.engine,
            "MODEL": self._source(),
            "MODEL_NAME": self.model if self.recording else "",
            "RECORD": str(self.record.resolve()) if self.record else "",
        }
        defaults = {name: value for name, value in further.items() if name not in os.environ}
        return {**defaults, **{prefix + name: value for name, value in chosen.items() if value}}

    def _source(self) -> str:
        """What the inference service is to load.

        Raises:
            Failure: The model is written as a path, and there is no such folder.
        """
        if self.recording is not None:  # a replay's model; the option only names it
            return str(self.recording.resolve())
        if self.engine == "simulated" and Path(self.model).is_file():  # a profile of one's own
            return str(Path(self.model).resolve())
        return model_source(self.model)


def model_source(model: str) -> str:
    """The model as the inference service takes it: a folder by its whole path, anything else unchanged.

    Raises:
        Failure: It is written as a path, and there is no such folder.
    """
    if not model or _URL.match(model):
        return model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if not _HUB_ID.fullmatch(model):
        raise Failure(f"--model: no such folder: {model}")
    return model


def service_package(service: str) -> str:
    """The package below `codealign` that serves it."""
    return _PACKAGES.get(service, service)


def specs(home: Home, options: Options, names: Sequence[str] = SERVICES) -> list[ServiceSpec]:
    """How to start these services in a home."""
    benchmarks = {}
    if options.benchmarks:
        folder = str(options.benchmarks.resolve())
        # Kept out of the data, and evaluated on.
        benchmarks = {"CODEALIGN_COORDINATOR_BENCHMARKS": folder, "CODEALIGN_COORDINATOR_EVALUATION_DATA": folder}
    works = {"inference", "sandbox"} <= set(names)  # else it tells of runs, and takes none up
    every = {
        "dataset": ServiceSpec(
            "dataset", service_command("dataset"), {"CODEALIGN_DATASET_DATA_DIR": str(home.data.resolve())}
        ),
        # gVisor, its root and what is known of the platforms are the machine's: every home shares them.
        "sandbox": ServiceSpec("sandbox", service_command("sandbox"), options.sandbox(), ready_seconds=SANDBOX_SECONDS),
        "inference": ServiceSpec(
            "inference",
            service_command("inference", options.interpreter()),
            options.inference(),
            ready_seconds=MODEL_SECONDS,
        ),
        "coordinator": ServiceSpec(
            "coordinator",
            service_command("coordinator"),
            benchmarks if works else {"CODEALIGN_COORDINATOR_READS_ONLY": "true"},
            # Training too, where it runs beside it: a loop asks for one.
            needs=tuple(
                name
                for name in (("inference", "sandbox", "dataset", "training") if works else ("dataset",))
                if name in names or name != "training"
            ),
        ),
        "training": ServiceSpec(
            "training",
            service_command(service_package("training")),
            {"CODEALIGN_TRAINER_DATA_DIR": str(home.trainings.resolve())},
            # Inference too, where it runs beside it: the training service asks it for room.
            needs=tuple(name for name in ("inference", "dataset") if name in names),
            package=service_package("training"),
        ),
    }
    return [every[name] for name in names]
