"""One worker against three behind a gateway: throughput, prefix reuse, what the gateway costs, and a worker's loss.

    make bench-inference      # or .venv/bin/python -m tests.bench.inference [--prompts 1000] [--groups 8] [--slots 32]

Workers and gateway are processes. The workers (`vllm_like.py`) wait as long as vLLM would compute, and keep a prefix
cache as it does. The absolute times hold for an idle machine only; the ratios suffer less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common.clients import connect
from tests.bench.processes import Service

_WORKERS = 3
_PREFIX_CHARS, _TASK_CHARS = 5_600, 400
"""1,400 tokens of few-shot examples and 100 of the task, as in the pipeline's longest prompts."""
_NEW_TOKENS = 100
_LATENCY_REQUESTS, _LATENCY_AT_ONCE = 200, 4
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    """What one way to serve the prompts achieved."""

    seconds: float
    samples: int
    cached_share: float
    """Fraction of the prompt tokens that were not computed."""
    processor_seconds: float
    """CPU seconds of the gateway."""
    busy_share: float
    """Fraction of the slots of the workers that respond which were in use, until the queue was empty."""

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds


def _worker(folder: Path, number: int, slots: int) -> Service:
    settings = {"slots": str(slots), "max_waiting": "100000", "log_level": "warning"}
    command = (sys.executable, "-m", "tests.bench.vllm_like")
    return Service("inference", folder / f"worker-{number}", settings, command)


def _gateway(folder: Path, workers: Sequence[Service]) -> Service:
    target = ",".join(worker.address for worker in workers)
    settings = {"worker_target": target, "max_waiting": "100000", "worker_attempts": "10", "log_level": "warning"}
    return Service("inference", folder / "gateway", settings)


def _requests(prompts: int, groups: int) -> list[pb.GenerateRequest]:
    made = []
    for number in range(prompts):
        group = f"group {number % groups}"
        prefix = (group * _PREFIX_CHARS)[:_PREFIX_CHARS]
        made.append(
            pb.GenerateRequest(
                prompt=prefix + f"task {number}".ljust(_TASK_CHARS),
                samples=[pb.Sample(attempt=0, seed=number)],
                sampling=pb.SamplingParameters(temperature=1, max_tokens=_NEW_TOKENS),
                prefix_key=group,
                prefix_chars=_PREFIX_CHARS,
            )
        )
    return made


@asynccontextmanager
async def _stub(address: str) -> AsyncIterator[Any]:
    channel = connect(address)
    try:
        yield InferenceServiceStub(channel)
    finally:
        await channel.close()


async def _one(stub: Any, request: pb.GenerateRequest) -> pb.Completion:
    found: list[pb.Completion] = [response.completion async for response in stub.Generate(request)]
    assert len(found) == 1, "a sample is answered once"
    return found[0]


async def _busy(workers: Sequence[Service], until: asyncio.Event) -> float:
    """Return the fraction of slots in use while requests wait, over the workers that respond."""
    shares: list[float] = []
    async with asyncio.TaskGroup() as group:

        async def watch(worker: Service) -> None:
            async with _stub(worker.address) as stub:
                while not until.is_set():
                    try:
                        load = await stub.GetLoad(pb.GetLoadRequest(), timeout=1)
                        shares.append(load.running / load.slots)
                    except grpc.aio.AioRpcError:
                        pass  # it is the one that was killed
                    await asyncio.sleep(_POLL_SECONDS)

        for worker in workers:
            group.create_task(watch(worker))
    return statistics.fmean(shares)


async def _throughput(
    front: Service, workers: Sequence[Service], requests: Sequence[pb.GenerateRequest], victim: Service | None = None
) -> Measured:
    before = front.usage().processor_seconds
    drained = asyncio.Event()
    slots = sum(int(worker.settings["slots"]) for worker in workers)
    left = len(requests)
    watcher = asyncio.create_task(_busy(workers, drained))
    started = time.monotonic()
    async with _stub(front.address) as stub:

        async def ask(request: pb.GenerateRequest) -> pb.Completion:
            nonlocal left
            completion = await _one(stub, request)
            left -= 1
            if left <= slots:  # from here on, slots are idle whatever the gateway does
                drained.set()
            return completion

        tasks = [asyncio.create_task(ask(request)) for request in requests]
        if victim is not None:
            while left > 0.8 * len(requests):  # noqa: ASYNC110 (the requests change it)
                await asyncio.sleep(_POLL_SECONDS)
            victim.kill()
            victim.start()
        completions = await asyncio.gather(*tasks)
    seconds = time.monotonic() - started
    drained.set()
    prompt_tokens = sum(completion.prompt_tokens for completion in completions)
    return Measured(
        seconds=seconds,
        samples=len(completions),
        cached_share=sum(completion.cached_prompt_tokens for completion in completions) / prompt_tokens,
        processor_seconds=front.usage().processor_seconds - before,
        busy_share=await watcher,
    )


async def _overheads(address: str) -> list[float]:
    """Return for each request the milliseconds that the caller waited beyond the engine's own time, sorted."""
    gate, found = asyncio.Semaphore(_LATENCY_AT_ONCE), []
    async with _stub(address) as stub:

        async def ask(request: pb.GenerateRequest) -> None:
            async with gate:
                began = time.perf_counter()
                completion = await _one(stub, request)
                found.append(1000 * (time.perf_counter() - began - completion.seconds))

        requests = _requests(_LATENCY_REQUESTS, 1)
        for request in requests:
            request.sampling.max_tokens = 1
        await asyncio.gather(*map(ask, requests))
    return sorted(found)


def _p99(values: Sequence[float]) -> float:
    return values[int(0.99 * (len(values) - 1))]


async def measure(prompts: int, groups: int, slots: int, folder: Path) -> list[str]:
    """Run everything and return the lines of the table."""
    workers = [_worker(folder, number, slots) for number in range(_WORKERS)]
    gateway = _gateway(folder, workers)
    requests = _requests(prompts, groups)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready()
        direct = await _overheads(workers[0].address)
        workers[0].kill()  # so that every measurement begins with empty caches
        workers[0].start()
        workers[0].wait_ready()
        alone = await _throughput(workers[0], workers[:1], requests)
        workers[0].kill()
        workers[0].start()
        workers[0].wait_ready()
        gateway.start()
        gateway.wait_ready()
        through = await _overheads(gateway.address)
        together = await _throughput(gateway, workers, requests)
        disturbed = await _throughput(gateway, workers, requests, victim=workers[-1])
    finally:
        for service in (gateway, *workers):
            service.kill()
    added = _p99(through) - _p99(direct)
    cost = 1000 * together.processor_seconds / together.samples
    return [
        f"{prompts} prompts in {groups} prefix groups, {slots} slots per worker, load average {os.getloadavg()[0]:.1f}",
        "",
        f"| measure | one worker | {_WORKERS} workers | one of them killed | aim |",
        "|---|---:|---:|---:|---:|",
        f"| samples per second | {alone.throughput:.1f} | {together.throughput:.1f} | {disturbed.throughput:.1f} | |",
        f"| relative to one worker | 1.00 | {together.throughput / alone.throughput:.2f} "
        f"| {disturbed.throughput / alone.throughput:.2f} | 2.80 |",
        f"| prompt tokens cached | {alone.cached_share:.1%} | {together.cached_share:.1%} | "
        f"{disturbed.cached_share:.1%} | within 5 points |",
        f"| busy share of the slots while samples wait | {alone.busy_share:.1%} | {together.busy_share:.1%} "
        f"| {disturbed.busy_share:.1%} | 90% |",
        f"| gateway's CPU milliseconds per sample | - | {cost:.2f} "
        f"| {1000 * disturbed.processor_seconds / disturbed.samples:.2f} | below 1 |",
        f"| milliseconds beside the engine's, p99 | {_p99(direct):.1f} | {_p99(through):.1f} (+{added:.1f}) | - "
        "| +5 at most |",
    ]


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--slots", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="codealign-bench-") as folder:
        lines = asyncio.run(measure(options.prompts, options.groups, options.slots, Path(folder)))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
