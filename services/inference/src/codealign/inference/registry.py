"""The loaded models by name, each with its own engine.

Invariants: a name is in `_entries`, in `_loading` or in neither, never in both. Models load one at a time, and only
after pending unloads have finished, so that each load sees the memory that is really free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from codealign.common.errors import (
    CodeAlignError,
    ConfigurationError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from codealign.common.logs import get_logger
from codealign.inference.engines.base import Engine, Load, ModelInfo, Sleeper
from codealign.inference.memory import release_memory
from codealign.inference.sources import require_revision
from codealign.inference.weights import DoesNotFit

log = get_logger(__name__)

_ASK_AGAIN_SECONDS = 5.0


class Opener(Protocol):
    """How a source becomes an engine."""

    @property
    def only_one(self) -> str:
        """Why no second model can be loaded, or empty if several can."""

    def key_of(self, source: str) -> str:
        """Return the canonical form of a source: equal for every spelling of the same source."""

    def name_of(self, source: str) -> str:
        """Return the default name of a model; may read a file."""

    async def open(self, source: str, name: str, expected_revision: str) -> Engine:
        """Open an engine; takes as long as loading the model."""


@dataclass(frozen=True, slots=True)
class _Entry:
    engine: Engine
    key: str


@dataclass(frozen=True, slots=True)
class _Loading:
    key: str
    expected_revision: str
    task: asyncio.Task[None]


class ModelRegistry:
    """Loads, finds and unloads models; call every method from the same event loop."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._entries: dict[str, _Entry] = {}
        self._loading: dict[str, _Loading] = {}
        # Engines that sleep, by the models' names. They count as not loaded.
        self._asleep: dict[str, _Entry] = {}
        self._one_at_a_time = asyncio.Lock()
        self._unloading: set[asyncio.Task[None]] = set()
        # Engines that are not closed, those included that sleep or are being closed: their tokens count until then.
        self._open: list[Engine] = []
        self._retired = Load()

    def add(self, engine: Engine) -> None:
        """Register an engine that is already open."""
        self._open.append(engine)
        self._entries[engine.model.name] = _Entry(engine, self._opener.key_of(engine.model.source))

    @property
    def engines(self) -> list[Engine]:
        """The engines of the loaded models, in loading order."""
        return [entry.engine for entry in self._entries.values()]

    @property
    def models(self) -> list[ModelInfo]:
        """The loaded models, in loading order."""
        return [engine.model for engine in self.engines]

    @property
    def faults(self) -> list[str]:
        """Engines that have failed for good, with the reason."""
        faults = [(name, entry.engine.fault) for name, entry in self._entries.items()]
        return [f"model {name}: {fault}" for name, fault in faults if fault]

    def find(self, name: str, field: str) -> Engine:
        """Return the engine of a model.

        Args:
            name: The model's name; empty selects the only loaded model.
            field: The request field that contains the name, for error messages.

        Raises:
            NotFound: No model of that name is loaded.
            InvalidArgument: The name is empty and several models are loaded.
            FailedPrecondition: The name is empty and no model is loaded.
            Unavailable: The model is still loading.
        """
        if entry := self._entries.get(name):
            return entry.engine
        if name in self._loading or (not name and not self._entries and self._loading):
            raise Unavailable(
                f"model {name or next(iter(self._loading))} is loading: try again later", retry_after=_ASK_AGAIN_SECONDS
            )
        if name:
            raise NotFound(f"model {name} is not loaded; {self._others()}")
        if not self._entries:
            raise FailedPrecondition("no model is loaded: load one with LoadModel")
        if len(self._entries) > 1:
            raise InvalidArgument(
                field, f"is empty but {len(self._entries)} models are loaded: name one; {self._others()}"
            )
        return next(iter(self._entries.values())).engine

    def load(self) -> Load:
        """Return the combined load of all engines; token counts include unloaded models and those that sleep."""
        total = self._retired
        loaded = {id(entry.engine) for entry in list(self._entries.values())}  # metrics are read from another thread
        for engine in list(self._open):
            load = engine.load()
            if id(engine) not in loaded:
                load = _tokens(load)
            # An adapter decodes in its base's slots.
            total = _sum(total, replace(load, slots=0) if engine.model.base else load)
        return total

    async def open(self, source: str, *, name: str = "", expected_revision: str = "") -> ModelInfo:
        """Load a model, or return it if it is already loaded from the same source under that name.

        If the caller goes away, loading continues; a later call joins it or finds the model loaded.

        Args:
            source: The model's source, in the engine's terms.
            name: The model's name in requests; empty: the name that the source is already loaded under, or one derived
                from it.
            expected_revision: The only revision to accept; empty: any.

        Raises:
            FailedPrecondition: The name is taken by another source, the revision differs, or this server can hold only
                one model.
            ConfigurationError: The engine rejects the source; see `Opener.open`.
        """
        key = self._opener.key_of(source)
        held: list[tuple[str, _Entry | _Loading]] = [*self._entries.items(), *self._loading.items()]
        name = name or next((other for other, one in held if one.key == key), "")
        name = name or await asyncio.to_thread(self._opener.name_of, source)
        while True:
            if entry := self._entries.get(name):
                self._require_same_source(name, entry.key, key)
                self._require_loaded_revision(entry.engine.model, expected_revision)
                return entry.engine.model
            loading = self._loading.get(name) or self._begin(source, key, name, expected_revision)
            self._require_same_source(name, loading.key, key)
            try:
                await asyncio.shield(loading.task)
            except (CodeAlignError, ConfigurationError):
                # The failure of a call that expected another revision does not apply to this call.
                if loading.expected_revision == expected_revision:
                    raise

    async def unload(self, name: str, *, may_sleep: bool = False) -> None:
        """Unload a model and return once its memory is free; calls in flight end with `Unavailable`.

        The adapters of a base are unloaded with it; an adapter leaves its base.

        Args:
            name: The model's name.
            may_sleep: Keep the engine asleep, if it can, so that `open` with the same name and source is fast.

        Raises:
            NotFound: The model is not loaded.
            Internal: It is unloaded, but its engine or that of an adapter could not be closed without an error.
        """
        if loading := self._loading.get(name):
            with contextlib.suppress(CodeAlignError, ConfigurationError):
                await asyncio.shield(loading.task)
        if name not in self._entries:
            raise NotFound(f"model {name} is not loaded; {self._others()}")
        # Adapters are served by the base's engine, so they go with it.
        gone = [other for other, entry in self._entries.items() if entry.engine.model.base == name]
        entries = {each: self._entries.pop(each) for each in (*gone, name)}
        task = asyncio.ensure_future(self._end(entries, name if may_sleep else ""))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Unload every model."""
        for loading in self._loading.values():
            loading.task.cancel()
        await asyncio.gather(*self._unloading, return_exceptions=True)
        engines = [*self.engines, *(entry.engine for entry in self._asleep.values())]
        self._entries.clear()
        self._asleep.clear()
        await self._close_all([engine for engine in engines if engine.model.base])
        await asyncio.gather(*(self._close(engine) for engine in engines if not engine.model.base))

    def _begin(self, source: str, key: str, name: str, expected_revision: str) -> _Loading:
        if (self._entries or self._loading) and (reason := self._opener.only_one):
            raise FailedPrecondition(f"{reason}; {self._others()}")
        task = asyncio.ensure_future(self._load_one(source, key, name, expected_revision))
        self._loading[name] = loading = _Loading(key, expected_revision, task)
        return loading

    async def _load_one(self, source: str, key: str, name: str, expected_revision: str) -> None:
        try:
            async with self._one_at_a_time:
                # An unload that failed is its own caller's concern.
                await asyncio.gather(*self._unloading, return_exceptions=True)
                engine = await self._awake(name, key, expected_revision)
                engine = engine or await self._opened(source, name, expected_revision)
                try:
                    require_revision(source, engine.model.revision, expected_revision)
                except FailedPrecondition:
                    await self._close(engine)
                    raise
                if engine.model.base and engine.model.base not in self._entries:
                    await self._close(engine)
                    raise Unavailable(f"{engine.model.base} was unloaded meanwhile: load it again, then {name}")
                self._entries[name] = _Entry(engine, key)
                log.info("model_loaded", model=name, source=source, revision=engine.model.revision)
        except (CodeAlignError, ConfigurationError) as error:
            # Logged here too, since the caller may be gone.
            log.warning("model_refused", model=name, source=source, reason=str(error))
            raise
        finally:
            del self._loading[name]

    async def _end(self, entries: dict[str, _Entry], sleeper: str) -> None:
        failed = []
        for name, entry in entries.items():
            if name != sleeper or not isinstance(entry.engine, Sleeper) or not entry.engine.can_sleep:
                if reason := await self._close(entry.engine):
                    failed.append(f"{name} ({reason})")
                continue
            try:
                await entry.engine.sleep()
            except Exception as error:  # any type, from the engine's libraries
                log.warning("sleep_failed", model=name, reason=str(error))
                await self._close(entry.engine)
            else:
                self._asleep[name] = entry
                log.info("model_asleep", model=name)
        if failed:
            raise Internal(f"unloaded, but not closed without an error: {', '.join(failed)}; memory may not be free")

    async def _awake(self, name: str, key: str, expected_revision: str) -> Engine | None:
        """Wake up the engine that sleeps under this name, if it has this source and revision."""
        entry = self._asleep.pop(name, None)
        if entry is None:
            return None
        # The source may have changed since, and then have the expected revision.
        is_wanted = entry.key == key and expected_revision in ("", entry.engine.model.revision)
        if is_wanted and isinstance(entry.engine, Sleeper) and not entry.engine.fault:
            try:
                await entry.engine.wake_up()
            except Exception as error:  # as above; most likely others have the memory
                log.warning("wake_up_failed", model=name, reason=str(error))
            else:
                log.info("model_awake", model=name)
                return entry.engine
        await self._close(entry.engine)
        return None

    async def _opened(self, source: str, name: str, expected_revision: str) -> Engine:
        """Open an engine; engines that sleep give way if there is no room."""
        try:
            engine = await self._opener.open(source, name, expected_revision)
        except DoesNotFit:
            if not self._asleep:
                raise
            asleep = [entry.engine for entry in self._asleep.values()]
            self._asleep.clear()
            await self._close_all(asleep)
            del asleep
            engine = await self._opener.open(source, name, expected_revision)
        self._open.append(engine)
        return engine

    async def _close_all(self, engines: Sequence[Engine]) -> None:
        for engine in engines:
            await self._close(engine)

    async def _close(self, engine: Engine) -> str:
        """Close an engine and return what went wrong, or ""."""
        name = engine.model.name
        failure = ""
        try:
            await engine.close()
        except Exception as error:  # any type, from the engine's libraries; others are to be closed after it
            failure = f"{type(error).__name__}: {error}"
            log.warning("close_failed", model=name, reason=failure)
        self._retired = _sum(self._retired, _tokens(engine.load()))
        self._open = [other for other in self._open if other is not engine]
        del engine
        await asyncio.to_thread(release_memory)
        log.info("model_unloaded", model=name)
        return failure

    def _require_same_source(self, name: str, held: str, wanted: str) -> None:
        if held != wanted:
            raise FailedPrecondition(
                f"model name {name} is in use by {held}: unload that model, or choose another name for {wanted}"
            )

    def _require_loaded_revision(self, model: ModelInfo, expected: str) -> None:
        if expected and model.revision != expected:
            raise FailedPrecondition(
                f"{model.name} is loaded from {model.source} at revision {model.revision}, not {expected}: unload it "
                "to load the source's current revision"
            )

    def _others(self) -> str:
        names = sorted(self._entries)
        if not names:
            return "no model is loaded: load one with LoadModel"
        return f"loaded: {', '.join(names)}"


def _tokens(load: Load) -> Load:
    return replace(load, running=0, waiting=0, slots=0)


def _sum(one: Load, other: Load) -> Load:
    return Load(
        running=one.running + other.running,
        waiting=one.waiting + other.waiting,
        slots=one.slots + other.slots,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_prompt_tokens=one.cached_prompt_tokens + other.cached_prompt_tokens,
        generated_tokens=one.generated_tokens + other.generated_tokens,
    )
