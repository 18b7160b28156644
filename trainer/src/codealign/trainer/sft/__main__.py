"""Entry point of the program: a single worker, or the start of several workers under torchrun."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path

from codealign.trainer.sft.job import Job, TrainingError, read_job
from codealign.trainer.sft.progress import Outcome, read_outcome, write_outcome

FOLLOW_PARENT = "CODEALIGN_TRAINER_FOLLOW_PARENT"
"""Process id of the parent, set by a parent with which the program must end."""
NODES = "CODEALIGN_TRAINER_NODES"
"""Set if the workers are spread over several pods: number of pods, index of this pod, and host:port of the first one,
as in `4,0,fine-tune-0.fine-tune:29501`."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Train according to the job file; exit with 1 on failure."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m codealign.trainer.sft <job.json>")
    path = Path(sys.argv[1])
    try:
        job = read_job(path)
    except TrainingError as error:
        sys.exit(str(error))
    under_torchrun = "LOCAL_RANK" in os.environ
    if under_torchrun or os.environ.get(FOLLOW_PARENT):
        _follow_parent(0 if under_torchrun else int(os.environ[FOLLOW_PARENT]))
    _environment(job)
    if not under_torchrun and (nodes := os.environ.get(NODES)):
        # Keep an outcome that another pod may have written; the one that started the pods has removed earlier outcomes.
        _become_torchrun(job, path, *nodes.split(","))
    if job.workers > 1 and not under_torchrun:
        job.outcome_file.unlink(missing_ok=True)
        _become_torchrun(job, path)
    if not under_torchrun:
        job.outcome_file.unlink(missing_ok=True)
    elif earlier := read_outcome(job.outcome_file):
        # torchrun restarts all workers when one fails; an outcome that was reached is final.
        sys.exit(earlier.message if earlier.state == "failed" else 0)
    sys.exit(_train(job))


def _train(job: Job) -> int:
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        from codealign.trainer.sft.program import train

        outcome = train(job, first_worker=first)
    except TrainingError as error:
        print(error, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            write_outcome(job.outcome_file, Outcome("failed", str(error)))
        return 1
    except ModuleNotFoundError as error:
        message = f"the training program needs {error.name}: pip install 'codealign-trainer[training]'"
        write_outcome(job.outcome_file, Outcome("failed", message))
        print(message, file=sys.stderr, flush=True)
        return 1
    if first:
        write_outcome(job.outcome_file, outcome)
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    return 0


def _environment(job: Job) -> None:
    """Set variables that libraries read at import."""
    os.environ.update(
        HF_HUB_DISABLE_TELEMETRY="1",  # TRL sends usage statistics otherwise
        HF_HUB_OFFLINE="1",  # everything is already local
        TOKENIZERS_PARALLELISM="false",
    )
    if job.threads:
        os.environ["OMP_NUM_THREADS"] = str(job.threads)
    if job.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if NODES not in os.environ:
            # All workers are on this machine, whatever its host name resolves to.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    elif job.workers == 1:
        # With several visible GPUs, PyTorch's trainer would copy the model to all of them.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def _become_torchrun(job: Job, path: Path, nodes: str = "1", node: str = "0", first: str = "") -> None:
    if first:
        host, _, port = first.rpartition(":")
        arguments = [f"--nnodes={nodes}", f"--node-rank={node}", f"--master-addr={host}", f"--master-port={port}"]
        arguments += [f"--nproc-per-node={job.workers // int(nodes)}"]
        # A lost worker ends the programs of all pods; restarted pods continue together.
        arguments += ["--max-restarts=0"]
    else:
        arguments = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={job.workers}"]
        arguments += [f"--max-restarts={job.max_restarts}"]
        # Otherwise PyTorch (2.13) gives restarted workers the store of their predecessors, and they wait for addresses
        # on which nobody listens any more.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    arguments += ["-m", "codealign.trainer.sft", str(path)]
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *arguments])  # noqa: S606


def _follow_parent(expected: int) -> None:
    """End this process together with its parent, however the parent ends, since nothing else would stop it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if expected and os.getppid() != expected:  # the parent died before prctl
        sys.exit("the parent process has died")


if __name__ == "__main__":
    main()
