"""Workers are killed at random while a gateway generates: every sample is answered once, with the same tokens."""

from __future__ import annotations

import asyncio
import random
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from codealign.api.inference.v1 import inference_pb2 as pb
from codealign.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from codealign.common.clients import connect
from codealign.inference import wire
from codealign.inference.engines.simulated import profile
from codealign.inference.engines.simulated.engine import SimulatedEngine
from tests.bench.processes import Service
from tests.ports import free_port

REQUESTS, SAMPLES = 125, 4
KILL_EVERY_SECONDS = 2.0
SPEED = 8.0
"""At this factor over the recorded speed a sample takes about a second, and all of them about twenty."""
SLOTS = 8

pytestmark = pytest.mark.slow


def asked(number: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=f"### Task {number}\nWrite a function.",
        samples=[pb.Sample(attempt=at, seed=number * SAMPLES + at) for at in range(SAMPLES)],
        sampling=pb.SamplingParameters(temperature=1, max_tokens=60),
        prefix_key=f"group {number % 8}",
    )


async def undisturbed() -> dict[tuple[int, int], str]:
    engine = SimulatedEngine(profile.load("nano"), slots=1000, speed=0)
    return {
        (number, completion.attempt): completion.text
        for number in range(REQUESTS)
        async for completion in engine.generate(wire.generation(asked(number)))
    }


async def kill_some(workers: list[Service], until: asyncio.Event) -> int:
    chance, kills = random.Random(1), 0
    while True:
        try:
            async with asyncio.timeout(KILL_EVERY_SECONDS):
                await until.wait()
                return kills
        except TimeoutError:
            victim = chance.choice(workers)
            await asyncio.to_thread(victim.kill)
            victim.start()
            kills += 1


def resent(metrics_port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as page:
        counts = re.findall(
            r'^codealign_inference_gateway_resent_samples_total\{reason="(.*)"\} (.*)$', page.read().decode(), re.M
        )
    return {reason: float(count) for reason, count in counts}


async def test_every_sample_is_answered_once_with_the_same_tokens_while_workers_are_killed(tmp_path: Path) -> None:
    settings = {"engine": "simulated", "simulated_speed": str(SPEED), "slots": str(SLOTS), "log_level": "warning"}
    workers = [Service("inference", tmp_path / f"worker-{number}", settings) for number in range(3)]
    metrics_port = free_port()
    front = Service(
        "inference",
        tmp_path / "gateway",
        {
            "worker_target": ",".join(worker.address for worker in workers),
            "worker_attempts": "20",
            "worker_wait_seconds": "120",
            "worker_probe_seconds": "0.2",
            "metrics_port": str(metrics_port),
        },
    )
    answers: dict[tuple[int, int], list[str]] = {}
    done = asyncio.Event()
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            await asyncio.to_thread(worker.wait_ready)
        front.start()  # one that is started before its workers refuses requests until one has responded
        await asyncio.to_thread(front.wait_ready)
        channel = connect(front.address)
        stub: Any = InferenceServiceStub(channel)

        async def generate(number: int) -> None:
            async for response in stub.Generate(asked(number)):
                answers.setdefault((number, response.completion.attempt), []).append(response.completion.text)

        killing = asyncio.create_task(kill_some(workers, done))
        await asyncio.gather(*(generate(number) for number in range(REQUESTS)))
        done.set()
        kills = await killing
        sent_again = await asyncio.to_thread(resent, metrics_port)
        await channel.close()
    finally:
        for service in (front, *workers):
            service.kill()
    assert answers == {place: [text] for place, text in (await undisturbed()).items()}
    assert len(answers) == REQUESTS * SAMPLES
    assert kills >= 3
    assert sum(sent_again.values()) > 0, "otherwise no kill met a sample"


async def test_a_worker_that_stops_hands_back_what_it_cannot_finish_and_no_attempt_is_counted(tmp_path: Path) -> None:
    settings = {
        "engine": "simulated",
        "simulated_speed": "2",
        "slots": "8",
        "log_level": "warning",
        "worker_of_gateway": "true",
        "drain_seconds": "2",
    }
    workers = [Service("inference", tmp_path / f"worker-{number}", settings) for number in range(2)]
    metrics_port = free_port()
    front = Service(
        "inference",
        tmp_path / "gateway",
        {
            "worker_target": ",".join(worker.address for worker in workers),
            "model": "nano",
            "engine": "simulated",
            "worker_attempts": "1",
            "worker_probe_seconds": "0.2",
            "metrics_port": str(metrics_port),
        },
    )
    try:
        for worker in workers:
            worker.start()
        front.start()
        for service in (front, *workers):  # the workers start empty, and are ready when they have the gateway's model
            await asyncio.to_thread(service.wait_ready)
        channel = connect(front.address)
        stub: Any = InferenceServiceStub(channel)
        answers = [asyncio.ensure_future(texts_of(stub, asked(number))) for number in range(3)]
        await asyncio.sleep(1)
        await asyncio.to_thread(workers[0].stop)
        undisturbed_texts = await undisturbed()
        for number, answer in enumerate(answers):
            assert await answer == {at: undisturbed_texts[number, at] for at in range(SAMPLES)}
        sent_again = await asyncio.to_thread(resent, metrics_port)
        await channel.close()
    finally:
        for service in (front, *workers):
            service.kill()
    assert sent_again["returned"] > 0
    assert sent_again["lost"] == sent_again["fault"] == 0


async def texts_of(stub: Any, request: pb.GenerateRequest) -> dict[int, str]:
    return {response.completion.attempt: response.completion.text async for response in stub.Generate(request)}
