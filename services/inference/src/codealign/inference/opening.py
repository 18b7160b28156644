"""From settings to an engine."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from codealign.common.errors import ConfigurationError
from codealign.inference.engines.base import Engine
from codealign.inference.settings import InferenceSettings


def open_engine(settings: InferenceSettings) -> Engine:
    """Open the engine that the settings name; takes as long as the model takes to load.

    Raises:
        ConfigurationError: says what is wrong with which setting.
    """
    if not settings.model:
        what = "the recording's file" if settings.engine == "replay" else "a model's folder or hub id"
        raise ConfigurationError(f"no model is set: give {what} with --model or CODEALIGN_INFERENCE_MODEL")
    engine = _open(settings)
    if settings.record is None:
        return engine
    from codealign.inference.engines.recording import RecordingEngine

    return RecordingEngine(engine, settings.record)


async def open_in_thread(settings: InferenceSettings) -> Engine:
    """Open the engine without blocking the event loop.

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
            engine = open_engine(settings)
        except BaseException as error:
            failure = error
            settle(lambda: opened.set_exception(failure))
        else:
            settle(lambda: opened.set_result(engine))

    threading.Thread(target=work, name="open-engine", daemon=True).start()
    return await opened


def _open(settings: InferenceSettings) -> Engine:
    # Imported here, since replaying must not need torch.
    if settings.engine == "replay":
        from codealign.inference.engines.replay import ReplayEngine

        if settings.record is not None:
            raise ConfigurationError("a replay cannot be recorded: unset CODEALIGN_INFERENCE_RECORD")
        return ReplayEngine(settings.model, name=settings.model_name)
    try:
        from codealign.inference.engines.transformers.engine import TransformersEngine
        from codealign.inference.engines.transformers.loading import load_model
        from codealign.inference.engines.transformers.options import EngineOptions
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"engine transformers needs {error.name}: pip install 'codealign-inference[transformers]'"
        ) from error
    options = EngineOptions(
        slots=settings.slots,
        threads=settings.threads,
        prefill_chunk=settings.prefill_chunk,
        kv_cache_bytes=settings.kv_cache_bytes,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        max_waiting=settings.max_waiting,
        max_context=settings.max_context,
        pack_weights=settings.pack_weights,
    )
    loaded = load_model(
        settings.model,
        name=settings.model_name,
        dtype=settings.dtype,
        device=settings.device,
        cache_folder=settings.cache_dir,
        options=options,
    )
    return TransformersEngine(loaded, options)
