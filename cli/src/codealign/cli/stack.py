"""The services of one machine and their settings."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
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
"""All services, in display order."""
_PACKAGES = {"training": "trainer"}
"""Packages of the services whose package has another name."""
DATA_SERVICES = SERVICES[:4]
"""Services that a run without training needs."""
UNWRITTEN_SERVICES = ("dataset", "sandbox", "coordinator")
"""Services that a run needs in which no model writes."""
NO_INFERENCE = "127.0.0.1:9"
"""Address for a coordinator that is started without an inference service. Nothing listens there, so runs that need a
model wait for it, as in any outage."""

MODEL_SECONDS = 3600.0
"""Timeout for loading a model, which may include a download."""
SANDBOX_SECONDS = 600.0
"""Timeout for starting the sandbox. The first start may download gVisor and builds its file system."""

VLLM_PYTHON = "CODEALIGN_VLLM_PYTHON"
"""Environment variable with the interpreter of vLLM's environment."""

ISOLATIONS = tuple(name.lower() for name in value_names(sandbox.Isolation.DESCRIPTOR))
PROCESS = "process"
ISOLATION = "CODEALIGN_SANDBOX_ISOLATION"
LEASE_HOLDER = "CODEALIGN_COORDINATOR_LEASE_HOLDER"
WITHOUT_ISOLATION = (
    "isolation=process: programs run WITHOUT gVisor, as ordinary processes on this machine. For debugging only: do not "
    "run code that you have not read. Rows with such verdicts are never published."
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_URL = re.compile(r"[a-z][a-z0-9+]*://")


@dataclass(frozen=True)
class Options:
    """Options for the services that a command starts."""

    model: str = ""
    """A hub id, a directory, or an artifact URL. Empty: the inference service's default."""
    engine: str = ""
    """"transformers", "replay", "simulated", ... Empty: the inference service's default."""
    recording: Path | None = None
    """Recording that the engine `replay` answers from."""
    record: Path | None = None
    """File to record every completion in, for `replay`."""
    benchmarks: Path | None = None
    """File or directory of benchmark tasks: their texts are kept out of the data, and models are evaluated on them."""
    isolation: str = ""
    """One of ISOLATIONS. Empty: the sandbox service's default, gVisor."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the inference service by name. Environment variables win over them."""

    def check(self) -> None:
        """Check the options before anything is started.

        Raises:
            Failure: An option is invalid.
        """
        if self.isolation and self.isolation not in ISOLATIONS:
            raise Failure(f"--isolation: must be {' or '.join(ISOLATIONS)}, is {self.isolation!r}")
        if self.engine == "replay" and self.recording is None:
            raise Failure("--engine replay needs --recording FILE, the completions to answer with")
        if self.recording is not None and self.engine != "replay":
            raise Failure("--recording works only with --engine replay: pass both or neither")
        if self.recording is not None and not self.recording.is_file():
            raise Failure(f"--recording: no such file: {self.recording}")
        if self.recording is not None and self.record is not None:
            raise Failure("--record: a replay cannot be recorded; omit the option")
        if self.benchmarks is not None and not self.benchmarks.exists():
            raise Failure(f"--benchmarks: no such file or directory: {self.benchmarks}")
        if self.record is not None and not self.record.resolve().parent.is_dir():
            raise Failure(f"--record: no such directory: {self.record.resolve().parent}")
        self._source()
        self.interpreter()

    def warning(self) -> str:
        """Return a warning to print before anything is started, or "" if there is none."""
        chosen = self.isolation or os.environ.get(ISOLATION, "")
        return WITHOUT_ISOLATION if chosen == PROCESS else ""

    def sandbox(self) -> dict[str, str]:
        """Return environment variables for the sandbox service."""
        return {ISOLATION: self.isolation} if self.isolation else {}

    def interpreter(self) -> str:
        """Return the interpreter of the inference service: vLLM has its own environment, because its pins conflict.

        Raises:
            Failure: vLLM's environment does not exist.
        """
        if self.engine != "vllm" or importlib.util.find_spec("vllm") is not None:
            return sys.executable
        chosen = Path(os.environ.get(VLLM_PYTHON) or Path(sys.prefix).parent / ".venv-vllm/bin/python")
        if not chosen.is_file():
            raise Failure(
                f"--engine vllm: {chosen} does not exist: build vLLM's environment with `make setup-vllm`, or set "
                f"{VLLM_PYTHON} to the interpreter of another environment"
            )
        return str(chosen)

    def inference(self) -> dict[str, str]:
        """Return environment variables for the inference service."""
        prefix = "CODEALIGN_INFERENCE_"
        further = {prefix + name.upper(): str(value) for name, value in self.settings.items()}
        # Spinning OpenMP threads take CPU time from the sandbox. On two cores, an evaluation of nano took 98 s with
        # spinning and 80 s without.
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
        """Return the model that the inference service loads.

        Raises:
            Failure: The model is a path that does not exist.
        """
        if self.recording is not None:  # the engine `replay` loads the recording; --model only names it
            return str(self.recording.resolve())
        if self.engine == "simulated" and Path(self.model).is_file():  # a user's own profile
            return str(Path(self.model).resolve())
        return model_source(self.model)


def model_source(model: str) -> str:
    """Return the model in the form that the inference service takes: directories as absolute paths, the rest unchanged.

    Raises:
        Failure: The model is a path that does not exist.
    """
    if not model or _URL.match(model):
        return model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if not _HUB_ID.fullmatch(model):
        raise Failure(f"--model: no such directory: {model}")
    return model


def service_package(service: str) -> str:
    """Return the package below `codealign` that implements a service."""
    return _PACKAGES.get(service, service)


def specs(home: Home, options: Options, names: Sequence[str] = SERVICES) -> list[ServiceSpec]:
    """Return how to start these services in a home directory."""
    benchmarks = {}
    if options.benchmarks:
        folder = str(options.benchmarks.resolve())
        # The same files are kept out of the data and used for evaluation.
        benchmarks = {"CODEALIGN_COORDINATOR_BENCHMARKS": folder, "CODEALIGN_COORDINATOR_EVALUATION_DATA": folder}
    works = "sandbox" in names  # otherwise the coordinator only reads: it does not resume runs
    without = {} if "inference" in names else {"CODEALIGN_COORDINATOR_INFERENCE_ADDRESS": NO_INFERENCE}
    # This process starts one coordinator at a time. A coordinator that succeeds one that died has the same name in the
    # store's leases. So it resumes the runs at once, without waiting until the leases expire.
    holder = {LEASE_HOLDER: os.environ.get(LEASE_HOLDER) or f"{socket.gethostname()}-{os.getpid()}"}
    every = {
        "dataset": ServiceSpec(
            "dataset", service_command("dataset"), {"CODEALIGN_DATASET_DATA_DIR": str(home.data.resolve())}
        ),
        # gVisor, its root file system and platform probe results are shared by all home directories of the machine.
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
            benchmarks | holder | without if works else {"CODEALIGN_COORDINATOR_READS_ONLY": "true"},
            # Training is used by loops, if it runs on this machine.
            needs=tuple(
                name
                for name in (("inference", "sandbox", "dataset", "training") if works else ("dataset",))
                if name in names
            ),
        ),
        "training": ServiceSpec(
            "training",
            service_command(service_package("training")),
            {"CODEALIGN_TRAINER_DATA_DIR": str(home.trainings.resolve())},
            # The training service asks inference to free memory, if it runs on this machine.
            needs=tuple(name for name in ("inference", "dataset") if name in names),
            package=service_package("training"),
        ),
    }
    return [every[name] for name in names]
