"""Faults that are injected into running services. Every fault ends and is undone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from services.dataset.tests.conftest import Postgres
from tests.bench.scene import Scene
from tests.chaos.disk import Disk
from tests.chaos.proxy import Proxy

SERVICES = ("dataset", "coordinator", "inference", "sandbox")


@dataclass(frozen=True)
class Stage:
    """The services and proxies that faults act on.

    Args:
        scene: The services.
        proxies: By the service that they stand before; the coordinator alone goes through them.
        disk: Of the dataset service.
        seconds: How long a fault lasts at most; a freeze lasts exactly so long.
        postgres: The dataset service's database, where it is not a file.
    """

    scene: Scene
    proxies: Mapping[str, Proxy]
    disk: Disk
    seconds: float
    postgres: Postgres | None = None
    sleep: Callable[[float], None] = time.sleep
    down: set[str] = field(default_factory=set)
    """Services that a fault keeps down, so that nothing else restarts them."""


@dataclass(frozen=True)
class Fault:
    """One drawn fault and its duration."""

    name: str
    run: Callable[[], None]


def drawn(stage: Stage, dice: random.Random) -> Iterator[Fault]:
    """Yield faults endlessly: all kinds in random order, then all again in another order."""
    makers: list[tuple[Callable[[Stage, random.Random, str], Fault], str]] = [
        *((make, name) for make in (_kill, _freeze) for name in SERVICES),
        *((make, name) for make in (_drop, _hold, _refuse) for name in sorted(stage.proxies)),
        *((make, "") for make in (_full_disk, _slow_engine, _dead_engine) for _ in range(2)),
        *((_no_database, "") for _ in range(2 if stage.postgres else 0)),
    ]
    while True:
        for make, name in dice.sample(makers, len(makers)):
            yield make(stage, dice, name)


def _kill(stage: Stage, dice: random.Random, name: str) -> Fault:
    seconds = round(dice.uniform(0, stage.seconds / 4), 2)
    return Fault(f"SIGKILL to {name}, started again after {seconds:g} s", lambda: _down(stage, name, seconds))


def _dead_engine(stage: Stage, dice: random.Random, _: str) -> Fault:
    seconds = round(dice.uniform(stage.seconds / 2, stage.seconds), 2)
    return Fault(f"the engine is dead for {seconds:g} s", lambda: _down(stage, "inference", seconds))


def _down(stage: Stage, name: str, seconds: float) -> None:
    service = stage.scene.services[name]
    stage.down.add(name)
    try:
        service.kill()
        stage.sleep(seconds)
        service.start()
    finally:
        stage.down.discard(name)


def _freeze(stage: Stage, _: random.Random, name: str) -> Fault:
    def freeze() -> None:
        service = stage.scene.services[name]
        service.signal(signal.SIGSTOP)
        try:
            stage.sleep(stage.seconds)
        finally:
            service.signal(signal.SIGCONT)

    return Fault(f"SIGSTOP to {name} for {stage.seconds:g} s", freeze)


def _drop(stage: Stage, dice: random.Random, name: str) -> Fault:
    times = dice.randint(1, 4)

    def drop() -> None:
        for _ in range(times):
            stage.proxies[name].drop()
            stage.sleep(0.2)

    return Fault(f"connections to {name} are reset {times} times", drop)


def _hold(stage: Stage, dice: random.Random, name: str) -> Fault:
    seconds = round(dice.uniform(0, stage.seconds), 2)
    proxy = stage.proxies[name]
    return Fault(
        f"no byte reaches {name} for {seconds:g} s",
        lambda: _for(stage, seconds, lambda: proxy.hold(True), lambda: proxy.hold(False)),
    )


def _refuse(stage: Stage, dice: random.Random, name: str) -> Fault:
    seconds = round(dice.uniform(0, stage.seconds / 2), 2)
    proxy = stage.proxies[name]
    return Fault(
        f"{name} refuses connections for {seconds:g} s",
        lambda: _for(stage, seconds, lambda: proxy.refuse(True), lambda: proxy.refuse(False)),
    )


def _slow_engine(stage: Stage, dice: random.Random, _: str) -> Fault:
    delay, seconds = round(dice.uniform(0.1, 1.0), 2), round(dice.uniform(0, stage.seconds), 2)
    proxy = stage.proxies["inference"]
    return Fault(
        f"the engine is slower by {delay:g} s a message for {seconds:g} s",
        lambda: _for(stage, seconds, lambda: proxy.slow(delay), lambda: proxy.slow(0)),
    )


def _full_disk(stage: Stage, dice: random.Random, _: str) -> Fault:
    seconds, dataset = round(dice.uniform(0, stage.seconds / 2), 2), stage.scene.services["dataset"]
    return Fault(
        f"the dataset's disk is full for {seconds:g} s: {stage.disk.way}",
        lambda: _for(stage, seconds, lambda: stage.disk.fill(dataset.pid), lambda: stage.disk.free(dataset.pid)),
    )


def _no_database(stage: Stage, dice: random.Random, _: str) -> Fault:
    seconds, server = round(dice.uniform(0, stage.seconds), 2), stage.postgres
    assert server is not None
    return Fault(f"PostgreSQL is stopped for {seconds:g} s", lambda: _for(stage, seconds, server.stop, server.start))


def _for(stage: Stage, seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
    try:
        begin()
        stage.sleep(seconds)
    finally:
        end()
