"""Start vLLM with a model folder: arguments, environment and readable errors.

The environment is set before vLLM is imported, since vLLM reads part of it at import.
"""

from __future__ import annotations

import difflib
import functools
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from codealign.common import adapters
from codealign.common.errors import ConfigurationError
from codealign.common.logs import get_logger
from codealign.common.machine import available_memory
from codealign.common.model_identity import revision
from codealign.inference.engines.base import ModelInfo
from codealign.inference.engines.model_files import configuration, end_tokens
from codealign.inference.engines.prompts import chat_template_of, first_line, load_tokenizer
from codealign.inference.engines.vllm import proofs
from codealign.inference.engines.vllm.engine import RunningVllm, VllmEngine
from codealign.inference.settings import InferenceSettings
from codealign.inference.sources import default_name, local_source, require_revision
from codealign.inference.weights import DoesNotFit, parameter_count, require_memory

log = get_logger(__name__)

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Limits of an adapter's rank that vLLM offers."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def start_engine(settings: InferenceSettings, source: str, name: str, expected_revision: str) -> VllmEngine:
    """Start vLLM with a model; takes from half a minute to several minutes.

    Raises:
        ConfigurationError: vLLM cannot serve the model; the message says why and what to do.
        FailedPrecondition: The source's revision is not the expected one.
    """
    _set_environment(settings)
    import vllm
    from vllm import envs
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    _require_device(settings, current_platform.device_type, current_platform.get_device_capability())
    dtype = settings.dtype if settings.dtype != "auto" else ("float32" if on_cpu else "bfloat16")
    folder = local_source(source, settings.cache_dir)
    if not (folder / "config.json").is_file():
        if (folder / adapters.CONFIG).is_file():
            raise ConfigurationError(
                f"{folder} is a LoRA adapter: load its base with CODEALIGN_INFERENCE_VLLM_MAX_LORAS set, then the "
                "adapter; or load the whole trained model"
            )
        raise ConfigurationError(f"{folder} is not a model folder: config.json is missing")
    tokenizer = load_tokenizer(folder)
    parameters = parameter_count(folder)
    if on_cpu:
        require_memory(source, parameters, _BYTES[dtype], 0, settings.kv_cache_bytes, available_memory())
    loaded_revision = revision(folder, settings.cache_dir)
    require_revision(source, loaded_revision, expected_revision)
    name = name or default_name(source)
    arguments = {"served_model_name": name, **engine_arguments(settings, folder, dtype, on_cpu=on_cpu)}
    llm = _started(settings, arguments)
    held_dtype = str(llm.model_config.dtype).removeprefix("torch.")
    unproved = ""
    if envs.VLLM_BATCH_INVARIANT and not on_cpu:
        capability = current_platform.get_device_capability()
        setup = proofs.Setup(
            vllm=vllm.__version__,
            capability=f"{capability.major}.{capability.minor}",
            model=loaded_revision,
            dtype=held_dtype,
            tensor_parallel=settings.vllm_tensor_parallel,
        )
        unproved = proofs.unproved(
            settings.vllm_proofs or settings.cache_dir / proofs.FILE,
            setup,
            prefix_caching=bool(llm.vllm_config.cache_config.enable_prefix_caching),
            adapters=llm.vllm_config.lora_config is not None,
        )
    info = ModelInfo(
        name=name,
        source=source,
        revision=loaded_revision,
        engine="vllm",
        context_length=llm.model_config.max_model_len,
        chat_template=chat_template_of(tokenizer),
        batch_invariant=not on_cpu and bool(envs.VLLM_BATCH_INVARIANT) and not unproved,
        dtype=held_dtype,
        device="cpu" if on_cpu else ", ".join(f"cuda:{at}" for at in range(settings.vllm_tensor_parallel)),
        size_bytes=parameters * _BYTES[dtype],
        unproved=unproved,
    )
    if unproved:
        log.warning("not_batch_invariant", reason=unproved)
    log.info("vllm_started", version=vllm.__version__, dtype=info.dtype, device=info.device)
    # The scheduler's limit is that of each engine core, of which there is one per data-parallel rank.
    slots = llm.vllm_config.scheduler_config.max_num_seqs * llm.vllm_config.parallel_config.data_parallel_size
    running = RunningVllm(
        llm,
        tokenizer,
        end_tokens(folder, tokenizer),
        slots,
        info,
        settings.vllm_sleep_level,
        functools.partial(revision, folder, settings.cache_dir),
    )
    return VllmEngine(running, settings.max_waiting)


def engine_arguments(settings: InferenceSettings, folder: Path, dtype: str, *, on_cpu: bool) -> dict[str, Any]:
    """Return the fields of AsyncEngineArgs; `vllm_args` override the others.

    Raises:
        ConfigurationError: vLLM has no such argument.
    """
    own_context = configuration(folder).get("max_position_embeddings")
    context = min(filter(None, (own_context, settings.max_context)), default=None)
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": context,
        "tensor_parallel_size": settings.vllm_tensor_parallel,
        "quantization": settings.vllm_quantization or None,
        "enable_prefix_caching": True,
        # Requests carry all sampling parameters; ignore the defaults in the model's folder.
        "generation_config": "vllm",
        "use_tqdm_on_load": False,
        # vLLM's own metrics (vllm:*) go to prometheus_client's registry, and so to this server's endpoint.
        "disable_log_stats": False,
        "enable_log_requests": False,
    }
    if on_cpu:
        arguments |= {
            "enforce_eager": True,
            "kv_cache_memory_bytes": settings.kv_cache_bytes,
            "max_num_seqs": settings.slots,
            # A seed together with chunked prefill crashes the CPU engine ("CPU Generator does not use offset"), so
            # every prompt is computed in one piece.
            "enable_chunked_prefill": False,
        }
        if context:
            arguments["max_num_batched_tokens"] = max(context, 2048)
    else:
        arguments["gpu_memory_utilization"] = settings.vllm_gpu_memory_utilization
        if "slots" in settings.model_fields_set:
            arguments["max_num_seqs"] = settings.slots
    if settings.vllm_sleep_level:
        arguments["enable_sleep_mode"] = True
    if settings.vllm_max_loras:
        arguments |= {
            "enable_lora": True,
            "max_loras": settings.vllm_max_loras,
            "max_cpu_loras": settings.vllm_max_loras,
            "max_lora_rank": next(rank for rank in _RANKS if rank >= settings.vllm_max_lora_rank),
        }
    return {**arguments, **_checked(settings.vllm_args)}


def _set_environment(settings: InferenceSettings) -> None:
    """Set the variables that vLLM reads, in this process and its children; existing values stay."""
    cores = sorted(os.sched_getaffinity(0))[: settings.threads]
    defaults = {
        # By default vLLM logs to standard output and sends usage statistics.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_LOGGING_LEVEL": "INFO" if settings.log_level == "debug" else "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        # A forked process would inherit gRPC's threads in an undefined state.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # The default binding leaves a core idle on small machines.
        "VLLM_CPU_OMP_THREADS_BIND": "|".join([",".join(map(str, cores))] * settings.vllm_tensor_parallel),
        "VLLM_BATCH_INVARIANT": "1" if settings.vllm_batch_invariant else "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _require_device(settings: InferenceSettings, device: str, capability: Any) -> None:
    if settings.device not in ("auto", device):
        raise ConfigurationError(
            f"device {settings.device}: this vLLM build runs on {device}; unset CODEALIGN_INFERENCE_DEVICE and choose "
            "GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device == "cpu" and settings.vllm_batch_invariant:
        raise ConfigurationError(
            "vllm_batch_invariant: vLLM is batch-invariant on GPUs only; on a CPU use engine transformers with dtype "
            "float64"
        )
    if device == "cpu" and settings.vllm_sleep_level:
        raise ConfigurationError("vllm_sleep_level: vLLM sleeps on GPUs only; unset it")
    if settings.vllm_batch_invariant and capability is not None and tuple(capability) < proofs.LEAST_CAPABILITY:
        raise ConfigurationError(
            f"vllm_batch_invariant: this GPU has compute capability {capability.major}.{capability.minor}, and vLLM's "
            f"batch invariance needs {'.'.join(map(str, proofs.LEAST_CAPABILITY))}: unset it, or use another GPU"
        )


def _checked(arguments: dict[str, Any]) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    for name in arguments:
        if name == "model":
            raise ConfigurationError("vllm_args: model cannot be set here: use LoadModel or --model")
        if name not in known:
            near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigurationError(f"vllm_args: vLLM's engine has no argument {name}{hint}")
    return arguments


def _started(settings: InferenceSettings, arguments: dict[str, Any]) -> Any:
    from vllm.config.logging import LoggingConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    form: Any = "json" if settings.log_format == "json" else "text"
    arguments.setdefault("logging_config", LoggingConfig(formatter=form))
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except Exception as error:  # configuration, weights, kernels, processes: any type
        kind = DoesNotFit if "memory" in str(error).lower() else ConfigurationError
        raise kind(f"vLLM cannot serve {arguments['model']}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the most informative line of an error; the first line of a pydantic error says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "rror, " in line or line.startswith("Value error")), "")
    return (told or first_line(error))[:400]
