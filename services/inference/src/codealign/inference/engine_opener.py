"""Open the engine that the settings select for a model source."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

from codealign.common.errors import ConfigurationError
from codealign.inference.engines.base import Engine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import default_name, key_of, local_source, require_revision

_ELSEWHERE = ("openai", "vllm-grpc")
"""Engines whose models are on other servers, which give them their names."""


class EngineOpener:
    """Opens engines of the configured kind, each with the configured sizes and limits."""

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        self._bases: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def only_one(self) -> str:
        """Why no second model can be loaded, or empty. A recording is of exactly one model."""
        if self._settings.record is None:
            return ""
        return (
            f"this server records to {self._settings.record}, and a recording is of one model: unload the loaded "
            "model first, or use a server that does not record"
        )

    def key_of(self, source: str) -> str:
        """Return the canonical form of a source: equal for every spelling of the same source."""
        return source if self._settings.engine in (*_ELSEWHERE, "simulated") else key_of(source)

    def name_of(self, source: str) -> str:
        """Return the default name of a model: the recording's, the profile's, or one derived from the source.

        Raises:
            ConfigurationError: The recording or the profile cannot be read.
        """
        if self._settings.engine == "replay":
            from codealign.inference.engines.recording_file import read_model

            return read_model(local_source(source, self._settings.cache_dir)).name
        if self._settings.engine == "simulated":
            from codealign.inference.engines.simulated import profile

            return profile.load(source).name
        return source if self._settings.engine in _ELSEWHERE else default_name(source)

    async def open(self, source: str, name: str, expected_revision: str) -> Engine:
        """Open an engine without blocking the event loop; see `open_engine`.

        With `vllm_max_loras`, a model that was trained with LoRA is opened on the engine of its base, if that is open.
        """
        if self._settings.engine != "vllm" or not self._settings.vllm_max_loras or self._settings.record is not None:
            return await self._opened(source, name, expected_revision)
        from codealign.inference.engines.vllm import adapters

        adapter = await asyncio.to_thread(adapters.find_adapter, source, self._settings.cache_dir)
        bases: list[Any] = [engine for engine in self._bases if engine.is_open]
        host = adapters.host_of(adapter, bases) if adapter else None
        if adapter is not None and host is not None:
            return await adapters.open_adapter(self._settings, host, adapter, source, name, expected_revision)
        engine = await self._opened(source, name, expected_revision)
        self._bases.add(engine)
        return engine

    async def _opened(self, source: str, name: str, expected_revision: str) -> Engine:
        return await _in_thread(lambda: open_engine(self._settings, source, name, expected_revision))


def configured_source(settings: InferenceSettings) -> str:
    """Return the model to load at startup.

    Raises:
        ConfigurationError: No model is configured.
    """
    if not settings.model and settings.engine == "simulated":
        from codealign.inference.engines.simulated import profile

        return profile.DEFAULT
    if not settings.model:
        what = {"replay": "the recording's file", **dict.fromkeys(_ELSEWHERE, "the model's name at the endpoint")}
        raise ConfigurationError(
            f"model is not configured: set --model or CODEALIGN_INFERENCE_MODEL to "
            f"{what.get(settings.engine, 'a folder, a hub id or an artifact URL')}"
        )
    return settings.model


def open_engine(settings: InferenceSettings, source: str, name: str = "", expected_revision: str = "") -> Engine:
    """Open the configured engine; takes as long as loading the model.

    Args:
        settings: The engine and its limits.
        source: The model's source.
        name: The model's name in requests; empty: derived from the source.
        expected_revision: The only revision to accept; empty: any.

    Raises:
        ConfigurationError: A setting or the source is invalid; the message says which and why.
        FailedPrecondition: The source is another revision. The model is not loaded.
    """
    engine = _open(settings, source, name, expected_revision)
    if settings.record is None:
        return engine
    from codealign.inference.engines.recording import RecordingEngine

    try:
        return RecordingEngine(engine, settings.record)
    except ConfigurationError:
        asyncio.run(engine.close())
        raise


async def _in_thread(open_it: Callable[[], Engine]) -> Engine:
    """Run `open_it` in a daemon thread and return its result.

    Unlike an executor's threads, a daemon thread does not keep a server that is stopped during loading alive until the
    model is loaded.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Engine] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        def unless_given_up() -> None:
            if not opened.done():
                set_it()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(unless_given_up)

    def work() -> None:
        try:
            engine = open_it()
        except BaseException as error:
            failure = error
            settle(lambda: opened.set_exception(failure))
        else:
            settle(lambda: opened.set_result(engine))

    threading.Thread(target=work, name="open-engine", daemon=True).start()
    return await opened


def _open(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    # Imported lazily, so that each engine needs only its own packages.
    opens = {
        "replay": _replay,
        "simulated": _simulated,
        "transformers": _transformers,
        "vllm": _vllm,
        "vllm-grpc": _vllm_grpc,
        "openai": _openai,
    }
    try:
        return opens[settings.engine](settings, source, name, expected_revision)
    except ModuleNotFoundError as error:
        extra = "transformers" if settings.engine == "vllm-grpc" else settings.engine  # for the tokenizer
        how = f"pip install 'codealign-inference[{extra}]'"
        if settings.engine == "vllm":
            how = "run `make setup-vllm` and start this server with .venv-vllm/bin/python -m codealign.inference.main"
        raise ConfigurationError(f"engine {settings.engine} needs {error.name}: {how}") from error


def _replay(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.replay import ReplayEngine

    if settings.record is not None:
        raise ConfigurationError("engine replay cannot record: unset CODEALIGN_INFERENCE_RECORD")
    engine = ReplayEngine(local_source(source, settings.cache_dir), name=name)
    require_revision(source, engine.model.revision, expected_revision)
    return engine


def _simulated(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.simulated import profile
    from codealign.inference.engines.simulated.engine import SimulatedEngine

    engine = SimulatedEngine(
        profile.load(source),
        name=name,
        slots=settings.slots,
        max_waiting=settings.max_waiting,
        max_context=settings.max_context,
        speed=settings.simulated_speed,
        seed=settings.simulated_seed,
    )
    require_revision(source, engine.model.revision, expected_revision)
    return engine


def _transformers(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.transformers.engine import TransformersEngine
    from codealign.inference.engines.transformers.loading import load_model
    from codealign.inference.engines.transformers.options import EngineOptions

    options = EngineOptions(
        slots=settings.slots,
        workers=settings.workers,
        threads=settings.threads,
        prefill_chunk=settings.prefill_chunk,
        kv_cache_bytes=settings.kv_cache_bytes,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        max_waiting=settings.max_waiting,
        max_context=settings.max_context,
        pack_weights=settings.pack_weights,
    )
    loaded = load_model(
        source,
        name=name,
        dtype=settings.dtype,
        device=settings.device,
        cache_folder=settings.cache_dir,
        options=options,
        expected_revision=expected_revision,
    )
    return TransformersEngine(loaded, options)


def _vllm(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.vllm.starting import start_engine

    return start_engine(settings, source, name, expected_revision)


def _vllm_grpc(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.vllm_grpc.engine import open_server

    return open_server(settings, source, name, expected_revision)


def _openai(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.openai.engine import open_endpoint

    return open_endpoint(settings, source, name, expected_revision)
