"""LoRA adapters that are served on the engine of their base model, so that the base is loaded once.

vLLM's prefix cache keeps adapters apart: a block's hash includes the adapter's name and path
(`vllm/v1/core/kv_cache_utils.py`, `_gen_lora_extra_hash_keys`). The name that vLLM is given is the adapter's revision,
so that other weights under the same name or path never meet cached keys and values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codealign.common import adapters
from codealign.common.errors import CodeAlignError, ConfigurationError, FailedPrecondition
from codealign.common.logs import get_logger
from codealign.inference.engines.model_files import configuration, end_tokens
from codealign.inference.engines.prompts import chat_template_of, first_line, load_tokenizer
from codealign.inference.engines.vllm.engine import RunningVllm, VllmEngine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import (
    FILES,
    SourceUnreachable,
    default_name,
    is_remote,
    local_source,
    require_revision,
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter on this machine's disk."""

    folder: Path
    rank: int
    base_model: str
    base_revision: str
    revision: str
    """Revision of the model that adapter and base are together."""
    has_merged_weights: bool
    """The source can also be loaded without its base."""


def find_adapter(source: str, cache_folder: Path) -> Adapter | None:
    """Return a source's adapter, or None if the source is a model without one.

    A source has an adapter if it is the adapter's folder, or that of a trained model with the adapter beside it.

    Raises:
        ConfigurationError: The adapter is damaged, or its files say nothing about its base; the message has what to do.
    """
    if is_remote(source):
        whole = local_source(source, cache_folder, ("*.json",))
        if not (whole / adapters.CONFIG).is_file():
            try:
                folder = local_source(f"{source.rstrip('/')}/{adapters.FOLDER}", cache_folder, FILES)
            except SourceUnreachable:
                raise
            except ConfigurationError:  # it does not exist
                return None
            return _read(folder, has_merged_weights=True)
        return _read(local_source(source, cache_folder, FILES), has_merged_weights=False)
    local = local_source(source, cache_folder, FILES)
    if (local / adapters.CONFIG).is_file() and not (local / "config.json").is_file():
        return _read(local, has_merged_weights=False)
    beside = local / adapters.FOLDER
    return _read(beside, has_merged_weights=True) if beside.is_dir() else None


def _read(folder: Path, *, has_merged_weights: bool) -> Adapter:
    again = "train again" if has_merged_weights else "copy it again, or give the folder of the whole trained model"
    try:
        belonging = adapters.read_belonging(folder)
    except ValueError as error:
        raise ConfigurationError(f"the LoRA adapter in {folder} cannot be used: {error}; {again}") from error
    rank = configuration(folder, adapters.CONFIG).get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ConfigurationError(f"the LoRA adapter in {folder} cannot be used: {adapters.CONFIG} has no rank; {again}")
    return Adapter(folder, rank, belonging.base_model, belonging.base_revision, belonging.revision, has_merged_weights)


def host_of(adapter: Adapter, engines: Sequence[VllmEngine]) -> VllmEngine | None:
    """Return the engine that has an adapter's base, or None if the model must be loaded by itself.

    Raises:
        FailedPrecondition: No engine has the base, and there are no merged weights.
    """
    host = next((each for each in engines if each.model.revision == adapter.base_revision), None)
    if host is None and not adapter.has_merged_weights:
        there = ", ".join(f"{each.model.name} ({each.model.revision[:12]})" for each in engines) or "no base model"
        raise FailedPrecondition(
            f"{adapter.folder} is a LoRA adapter of {adapter.base_model} at revision {adapter.base_revision}, and this "
            f"server has {there}: load that base first, or load the whole trained model"
        )
    return host


async def open_adapter(
    settings: InferenceSettings, host: VllmEngine, adapter: Adapter, source: str, name: str, expected_revision: str
) -> VllmEngine:
    """Load an adapter into the engine of its base.

    Raises:
        FailedPrecondition: The rank or the number of adapters exceeds the settings, or the revision is another one.
        ConfigurationError: vLLM cannot use the adapter.
    """
    require_revision(source, adapter.revision, expected_revision)
    instead = "load it by itself after unloading its base" if adapter.has_merged_weights else "use another server"
    if adapter.rank > settings.vllm_max_lora_rank:
        raise FailedPrecondition(
            f"the LoRA adapter of {source} has rank {adapter.rank}, and {host.model.name} was loaded for at most "
            f"{settings.vllm_max_lora_rank}: raise CODEALIGN_INFERENCE_VLLM_MAX_LORA_RANK and restart, or {instead}"
        )
    if len(host.adapters) >= settings.vllm_max_loras:
        raise FailedPrecondition(
            f"{host.model.name} has {len(host.adapters)} LoRA adapters ({', '.join(sorted(host.adapters))}), the most "
            f"that CODEALIGN_INFERENCE_VLLM_MAX_LORAS allows: unload one, raise it and restart, or {instead}"
        )
    tokenizer = load_tokenizer(adapter.folder)
    running = RunningVllm(
        llm=host.running.llm,
        tokenizer=tokenizer,
        end_tokens=end_tokens(adapter.folder, tokenizer) or host.running.end_tokens,
        slots=host.running.slots,
        info=dataclasses.replace(
            host.model,
            name=name or default_name(source),
            source=source,
            revision=adapter.revision,
            chat_template=chat_template_of(tokenizer),
            size_bytes=(adapter.folder / adapters.WEIGHTS).stat().st_size,
            base=host.model.name,
        ),
    )
    try:
        engine = await host.add_adapter(running, settings.max_waiting, adapter.folder)
    except CodeAlignError:
        raise
    except Exception as error:  # vLLM's checks of configuration and weights: any type
        raise ConfigurationError(
            f"vLLM cannot load the LoRA adapter in {adapter.folder}: {first_line(error)}; {instead}"
        ) from error
    log.info("adapter_loaded", model=running.info.name, base=host.model.name, rank=adapter.rank)
    return engine
