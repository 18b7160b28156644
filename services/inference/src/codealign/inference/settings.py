"""The inference service's settings: `CODEALIGN_INFERENCE_*`, or flags of the same names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from codealign.common.settings import ServerSettings


class InferenceSettings(ServerSettings):
    """Which model is served, by which engine, with how much of the machine."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_INFERENCE_")

    engine: Literal["transformers", "vllm", "openai", "replay", "simulated"] = "transformers"
    """transformers: models in this process. vllm: the same by vLLM. openai: an endpoint that speaks OpenAI's protocol.
    replay: completions that were recorded before. simulated: texts drawn from what was recorded of a model."""
    model: str = Field(default="", description="What is loaded at the start: a folder, a hub id or an artifact URL.")
    """What is loaded at the start: a folder, a hub id or an artifact URL; for replay the recording's file, for openai
    the name that the endpoint knows, for simulated a profile's name or file (empty: nano)."""
    model_name: str = ""
    """What requests call that model. Empty: the last part of `model`."""
    record: Path | None = None
    """Append every completion to this file, and serve those that it already holds. A recording holds one model, so no
    second one can be loaded meanwhile."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """auto: float32 on CPU, bfloat16 on CUDA. float64 makes completions independent of the batch (not vllm)."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto: CUDA where there is one. vllm takes the GPUs of CUDA_VISIBLE_DEVICES."""
    slots: int = Field(default=16, ge=1, le=1024)
    """Samples decoded at once. vllm on a GPU: its own number unless this is set."""
    workers: int = Field(default=1, ge=1, le=64)
    """Threads of engine transformers that decode, each with a part of the slots. More than one is for a model so small
    that its matrix products cannot use the cores; set threads to 1 then."""
    threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """CPU threads of the model; every core that the process may use unless set."""
    prefill_chunk: int = Field(default=256, ge=16)
    """Prompt tokens computed between two decode steps."""
    kv_cache_bytes: int = Field(default=4 * 2**30, gt=0)
    """Keys and values of each model's samples being decoded: one starts only where all fit at their longest. vllm on a
    CPU: of all that it holds, prefixes included, taken at the start."""
    prefix_cache_bytes: int = Field(default=1536 * 2**20, ge=0)
    """Keys and values of prompt prefixes kept for reuse."""
    max_waiting: int = Field(default=1024, ge=1)
    """Samples waiting for a slot; beyond it requests are refused with RESOURCE_EXHAUSTED."""
    max_context: int = Field(default=0, ge=0)
    """Tokens of prompt and completion, if less than the model's own context; 0: the model's."""
    pack_weights: bool = True
    """On CPU, keep linear weights in oneDNN's layout, which is several times as fast on AMD processors."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Where artifacts are downloaded to, and digests of model files are remembered."""

    vllm_tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share each model."""
    vllm_quantization: str = ""
    """vLLM's name of a quantization. Empty: as the model says."""
    vllm_gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """The share of each GPU's memory that vLLM takes, weights included. With several models: their sum is at most 1."""
    vllm_batch_invariant: bool = False
    """On GPUs: vLLM's batch invariance. Slower; completions no longer depend on what else is in the batch."""
    vllm_args: Annotated[dict[str, Any], NoDecode] = Field(default_factory=dict)
    """Further arguments of vLLM's engine by their Python names, as a JSON object; they win over what is set here."""

    openai_base_url: str = ""
    """The endpoint, as in http://127.0.0.1:8000/v1."""
    openai_api_key: SecretStr = SecretStr("")
    """Its key, if it wants one."""
    openai_timeout: float = Field(default=3600.0, gt=0)
    """Seconds that one completion may take. A request is never sent again after it."""
    openai_concurrency: int = Field(default=32, ge=1)
    """Requests to the endpoint at once; one per sample."""

    simulated_speed: float = Field(default=1.0, ge=0, le=1e6)
    """How many times as fast as was recorded. 0: at once."""
    simulated_seed: int = Field(default=0, ge=0, lt=2**63)
    """Another seed gives other completions, under another revision."""

    @field_validator("vllm_args", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f'is no JSON object ({error}), as in {{"max_num_seqs": 64}}') from None

    @model_validator(mode="after")
    def _endpoint_is_set(self) -> Self:
        if self.engine == "openai" and not self.openai_base_url.startswith(("http://", "https://")):
            raise ValueError("engine openai needs openai_base_url, as in http://127.0.0.1:8000/v1")
        if self.engine == "vllm" and self.dtype == "float64":
            raise ValueError("dtype float64 is not vLLM's: use float32, or the engine transformers")
        return self


class CommandLineSettings(InferenceSettings):
    """The same with flags (`--model`, `--engine`, `--record`, `--port`, ...), which win over the environment."""

    model_config = SettingsConfigDict(cli_parse_args=True, cli_prog_name="codealign-inference", cli_kebab_case=True)
