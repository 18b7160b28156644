"""An engine that records another engine's completions."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import Completion, Engine, GenerationRequest, Load, ModelInfo
from codealign.inference.engines.recording_file import Key, prompt_digest

log = get_logger(__name__)


class OtherModelRecorded(ConfigurationError):
    """The file contains another model's completions."""


class RecordingEngine:
    """Serves completions from a file, generates missing ones with the inner engine, and appends those to the file.

    The first completion written for a key is served from then on, so a stopped recording can be resumed.

    Args:
        inner: The engine that generates missing completions.
        path: The file; created if it does not exist.

    Raises:
        ConfigurationError: The file is damaged, belongs to another model, or is in use by another process.
    """

    def __init__(self, inner: Engine, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._completions: dict[Key, Completion] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise ConfigurationError(
                f"recording {path} cannot be written ({error.strerror}): check the path"
            ) from error
        try:
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    @property
    def model(self) -> ModelInfo:
        """The inner engine's model."""
        return self._inner.model

    @property
    def fault(self) -> str:
        """The inner engine's fault."""
        return self._inner.fault

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield recorded completions first, then new ones as they finish; see `Engine.generate`."""
        digest = prompt_digest(request.prompt)
        keys = {sample.attempt: (digest, request.sampling, sample) for sample in request.samples}
        missing = []
        for sample in request.samples:
            if kept := self._completions.get(keys[sample.attempt]):
                yield kept
            else:
                missing.append(sample)
        if not missing:
            return
        async with contextlib.aclosing(self._inner.generate(replace(request, samples=tuple(missing)))) as completions:
            async for completion in completions:
                yield self._keep(keys[completion.attempt], request, completion)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with the inner engine."""
        return await self._inner.count_tokens(texts)

    def load(self) -> Load:
        """Return the inner engine's load."""
        return self._inner.load()

    async def close(self) -> None:
        """Close the inner engine, then the file."""
        await self._inner.close()
        self._file.close()

    def _take_up(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"another process is recording to {self._path}: stop it or choose another file"
            ) from error
        if b"\n" not in self._path.read_bytes():
            # The file is new, or its writer was killed during the first line.
            self._file.truncate(0)
            self._write(recording_file.header_line(self.model))
            return
        recording = recording_file.read(self._path)
        self._require_same_model(recording.model)
        self._file.truncate(recording.whole_bytes)
        self._completions = dict(recording.completions)
        log.info("recording_resumed", path=str(self._path), completions=len(self._completions))

    def _require_same_model(self, recorded: ModelInfo) -> None:
        for what in ("revision", "dtype", "context_length"):
            then, now = getattr(recorded, what), getattr(self.model, what)
            if then != now:
                raise OtherModelRecorded(
                    f"recording {self._path} is of {recorded.name} with {what} {then}, but the model has {now}: "
                    "record to another file"
                )

    def _keep(self, key: Key, request: GenerationRequest, completion: Completion) -> Completion:
        # Of two concurrent calls for the same completion, the first result is kept.
        if kept := self._completions.get(key):
            return kept
        kept = replace(completion, seconds=round(completion.seconds, 3))
        self._write(recording_file.completion_line(request, kept))
        self._completions[key] = kept
        return kept

    def _write(self, line: str) -> None:
        self._file.write(line.encode())
        self._file.flush()
