"""From settings and a source to an engine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from codealign.common.errors import ConfigurationError
from codealign.inference.engines.base import Engine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import default_name, key_of, local_source, require_revision


class EngineOpener:
    """Opens engines of the kind that the settings name, each with the settings' sizes and bounds."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Open by these settings."""
        self._settings = settings

    @property
    def only_one(self) -> str:
        """A recording names one model in its first line: while one is made, no second model is loaded."""
        if self._settings.record is None:
            return ""
        return (
            f"this server records to {self._settings.record}, and a recording holds one model: unload it first, or "
            "use a server that does not record"
        )

    def key_of(self, source: str) -> str:
        """Equal for all the ways to write one source."""
        return source if self._settings.engine in ("openai", "simulated") else key_of(source)

    def name_of(self, source: str) -> str:
        """What requests call a model that was given no name: the recording's, the profile's, or one from the source.

        Raises:
            ConfigurationError: the recording or the profile cannot be read.
        """
        if self._settings.engine == "replay":
            from codealign.inference.engines.recording_file import read_model

            return read_model(local_source(source, self._settings.cache_dir)).name
        if self._settings.engine == "simulated":
            from codealign.inference.engines.simulated import profile

            return profile.load(source).name
        return source if self._settings.engine == "openai" else default_name(source)

    async def open(self, source: str, name: str, expected_revision: str) -> Engine:
        """Open an engine without blocking the event loop; see `open_engine`."""
        return await _in_thread(lambda: open_engine(self._settings, source, name, expected_revision))


def configured_source(settings: InferenceSettings) -> str:
    """The model that is loaded at the start.

    Raises:
        ConfigurationError: none is set.
    """
    if not settings.model and settings.engine == "simulated":
        from codealign.inference.engines.simulated import profile

        return profile.DEFAULT
    if not settings.model:
        what = {"replay": "the recording's file", "openai": "the name that the endpoint knows"}
        raise ConfigurationError(
            f"no model is set: give {what.get(settings.engine, 'a folder, a hub id or an artifact URL')} with --model "
            "or CODEALIGN_INFERENCE_MODEL"
        )
    return settings.model


def open_engine(settings: InferenceSettings, source: str, name: str = "", expected_revision: str = "") -> Engine:
    """Open the engine that the settings name; takes as long as the model takes to load.

    Args:
        settings: Which engine, with how much of the machine.
        source: What it serves.
        name: What requests call it; empty is derived from the source.
        expected_revision: Refuse another one; empty is any.

    Raises:
        ConfigurationError: says what is wrong with which setting, or with the source.
        FailedPrecondition: another revision was found, which is not loaded then.
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
    """Run this in a thread and give its result.

    The thread is a daemon, unlike an executor's: a server that is told to stop while it loads does not wait for the
    model first.
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
    # Imported here: an engine needs its own packages alone, and the servers of the others start without them.
    opens = {
        "replay": _replay,
        "simulated": _simulated,
        "transformers": _transformers,
        "vllm": _vllm,
        "openai": _openai,
    }
    try:
        return opens[settings.engine](settings, source, name, expected_revision)
    except ModuleNotFoundError as error:
        how = f"pip install 'codealign-inference[{settings.engine}]'"
        if settings.engine == "vllm":
            how = "run `make setup-vllm` and start this server with .venv-vllm/bin/python -m codealign.inference.main"
        raise ConfigurationError(f"engine {settings.engine} needs {error.name}: {how}") from error


def _replay(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.replay import ReplayEngine

    if settings.record is not None:
        raise ConfigurationError("a replay cannot be recorded: unset CODEALIGN_INFERENCE_RECORD")
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


def _openai(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> Engine:
    from codealign.inference.engines.openai.engine import open_endpoint

    return open_endpoint(settings, source, name, expected_revision)
