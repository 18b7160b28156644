"""An engine that serves recorded completions; needs neither torch nor a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from codealign.common.errors import NotFound, Unimplemented
from codealign.common.logs import get_logger
from codealign.inference import metrics
from codealign.inference.engines import recording_file
from codealign.inference.engines.base import Completion, GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.recording_file import first_line, prompt_digest

log = get_logger(__name__)


class ReplayEngine:
    """Serves completions by prompt, sampling parameters and sample.

    Args:
        path: A file that a recording engine wrote.
        name: The model's name in requests; empty: the recorded name.

    Raises:
        ConfigurationError: The file is missing or damaged.
    """

    def __init__(self, path: str | Path, *, name: str = "") -> None:
        self._path = Path(path)
        self._recording = recording_file.read(self._path)
        recorded = self._recording.model
        self._model = replace(
            recorded, name=name or recorded.name, engine="replay", batch_invariant=True, device="none"
        )
        self._load = Load()
        log.info("recording_read", path=str(path), completions=len(self._recording.completions))

    @property
    def model(self) -> ModelInfo:
        """The recorded model, served by this engine."""
        return self._model

    @property
    def fault(self) -> str:
        """Always empty: this engine cannot fail."""
        return ""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Completion]:
        """Yield the recorded completions in the order of the samples.

        Raises:
            NotFound: At least one completion is not in the recording; nothing is yielded.
        """
        digest = prompt_digest(request.prompt)
        found = []
        for sample in request.samples:
            completion = self._recording.completions.get((digest, request.sampling, sample))
            if completion is None:
                raise NotFound(self._missing(request, digest, sample))
            found.append(completion)
        for completion in found:
            self._count(completion)
            yield completion

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Raise `Unimplemented`: a recording has no tokenizer."""
        raise Unimplemented(
            f"engine replay has no tokenizer to count {len(texts)} texts: use a server that has the model"
        )

    def load(self) -> Load:
        """Return the token totals; nothing ever waits."""
        return self._load

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _missing(self, request: GenerationRequest, digest: str, sample: Sample) -> str:
        known = self._recording.of_prompt(digest)
        if not known:
            why = "does not have this prompt"
        elif all(key[1] != request.sampling for key in known):
            why = f"has this prompt only with other sampling parameters ({known[0][1]}, not {request.sampling})"
        else:
            why = f"has {len(known)} completions of this prompt, but not this sample"
        return (
            f"recording {self._path} {why}: prompt sha256 {digest}, first line {first_line(request.prompt)!r}, "
            f"attempt {sample.attempt}, seed {sample.seed}; record it with the model"
        )

    def _count(self, completion: Completion) -> None:
        self._load = replace(
            self._load,
            prompt_tokens=self._load.prompt_tokens + completion.prompt_tokens,
            cached_prompt_tokens=self._load.cached_prompt_tokens + (completion.cached_prompt_tokens or 0),
            generated_tokens=self._load.generated_tokens + completion.generated_tokens,
        )
        metrics.count(completion)
