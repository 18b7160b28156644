"""Inference service settings: `CODEALIGN_INFERENCE_*` environment variables or the equivalent flags."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from codealign.common.settings import ServerSettings

_ADDRESS = re.compile(r"(dns:///)?(\[[0-9a-fA-F:]+\]|[^\s/:]+):[0-9]{1,5}")


class InferenceSettings(ServerSettings):
    """The engine, the model that it serves, and its resource limits."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_INFERENCE_")

    engine: Literal["transformers", "vllm", "vllm-grpc", "openai", "replay", "simulated"] = "transformers"
    """transformers: models in this process. vllm: models in vLLM. vllm-grpc: a vLLM server that is already there.
    openai: an OpenAI-compatible endpoint. replay: recorded completions. simulated: synthetic text that follows a
    recorded model's statistics."""
    model: str = Field(default="", description="Model to load at startup: a folder, a hub id or an artifact URL.")
    """Model to load at startup: a folder, a hub id or an artifact URL. replay: the recording's file. openai
    and vllm-grpc: the model's name at the endpoint. simulated: a profile's name or file (empty: nano)."""
    model_name: str = ""
    """Model name in requests. Empty: the last part of `model`."""
    record: Path | None = None
    """Append every completion to this file and serve those that it already contains. A recording is of one model, so no
    second model can be loaded."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """auto: float32 on CPU, bfloat16 on CUDA. float64 makes completions independent of the batch (not supported by
    vllm)."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto: CUDA if available. vllm uses the GPUs in CUDA_VISIBLE_DEVICES."""
    slots: int = Field(default=16, ge=1, le=1024)
    """Maximum number of samples decoded at once. vllm on a GPU: vLLM's own default unless set."""
    workers: int = Field(default=1, ge=1, le=64)
    """Decoding threads of the engine transformers, each with a share of the slots. Use more than one only with a model
    whose matrix products are too small to use several cores, and set threads to 1."""
    threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """CPU threads of the model. Default: every core available to the process."""
    prefill_chunk: int = Field(default=256, ge=16)
    """Prompt tokens computed between two decode steps."""
    kv_cache_bytes: int = Field(default=4 * 2**30, gt=0)
    """Memory for the keys and values of running samples, per model. A sample starts only when all rows fit at maximum
    length. vllm on a CPU: the whole KV cache including prefixes, allocated at startup."""
    prefix_cache_bytes: int = Field(default=1536 * 2**20, ge=0)
    """Memory for cached keys and values of prompt prefixes."""
    max_waiting: int = Field(default=1024, ge=1)
    """Maximum number of samples waiting for a slot; further requests fail with RESOURCE_EXHAUSTED."""
    max_context: int = Field(default=0, ge=0)
    """Limit on prompt plus completion tokens, if lower than the model's context length; 0: the model's."""
    pack_weights: bool = True
    """On CPU, store linear weights in oneDNN's packed layout, which is several times as fast on AMD processors."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Directory for downloaded artifacts and for cached digests of model files."""

    vllm_tensor_parallel: int = Field(default=1, ge=1)
    """GPUs per model (tensor parallel size)."""
    vllm_quantization: str = ""
    """vLLM quantization method. Empty: as the model specifies."""
    vllm_gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Fraction of each GPU's memory for vLLM, weights included. With several models, the fractions must sum to at most
    1."""
    vllm_batch_invariant: bool = False
    """vLLM's batch invariance (GPUs with compute capability 8.0 or more): slower, but completions do not depend on the
    rest of the batch. The model says so (batch_invariant) only if prefix caching is off, or if `vllm_proofs` has the
    comparison of a cold with a warm prefix cache."""
    vllm_max_loras: int = Field(default=0, ge=0)
    """LoRA adapters that one base model may serve besides itself. A model that was trained with LoRA is then loaded as
    an adapter onto the engine that has its base, in place of its merged weights. Each takes memory, and the base gets
    slower, so the default is 0: none."""
    vllm_max_lora_rank: int = Field(default=16, ge=1, le=512)
    """Highest rank of an adapter. Memory is reserved for the next rank that vLLM has kernels for: 8, 16, 32, 64, 128,
    256, 320 or 512."""
    vllm_sleep_level: int = Field(default=0, ge=0, le=2)
    """vLLM's sleep mode (GPU only), for unloads before a training. 0: off. 1: weights go to main memory. 2: weights are
    dropped, and read again from the model's files; not together with adapters."""
    vllm_proofs: Path | None = None
    """File in which `make test-gpu` records for which vLLM, GPU and model a warm prefix cache was proved to give the
    same tokens. None: vllm-proofs.json in `cache_dir`."""
    vllm_args: Annotated[dict[str, Any], NoDecode] = Field(default_factory=dict)
    """Further vLLM engine arguments as a JSON object, by their Python names; they override the other settings."""

    vllm_grpc_address: str = ""
    """host:port of vLLM's gRPC server (`--grpc-port`). It has no authentication: whoever reaches it can use it and load
    adapters."""
    vllm_grpc_tokenizer: str = ""
    """Directory, hub id or URL with the tokenizer of the server's model. Empty: the server's model itself, if it is a
    hub id or a directory that is here too."""
    vllm_grpc_tls_ca_file: Path | None = None
    """CA certificates for the server (PEM), if a proxy in front of it speaks TLS. None: connect without TLS."""
    vllm_grpc_tls_cert_file: Path | None = None
    """Client certificate for the server (PEM), for mutual TLS."""
    vllm_grpc_tls_key_file: Path | None = None
    """Private key of the client certificate (PEM)."""
    vllm_grpc_timeout: float = Field(default=3600.0, gt=0)
    """Timeout for one completion, in seconds. A request that timed out is stopped and not sent again."""
    vllm_grpc_concurrency: int = Field(default=0, ge=0)
    """Maximum number of concurrent requests to the server; each sample is one request. 0: as many as it decodes at
    once."""
    vllm_grpc_cache_salt: str = ""
    """Prompts with another salt, such as those of other users of the server, share no cached prefixes with ours."""

    openai_base_url: str = ""
    """Base URL of the endpoint, as in http://127.0.0.1:8000/v1."""
    openai_api_key: SecretStr = SecretStr("")
    """API key of the endpoint, if it requires one."""
    openai_api: Literal["completions", "chat"] = "completions"
    """How prompts are sent. completions: to /completions, as they are. chat: to /chat/completions, as the message of a
    user after a request to continue it, for endpoints that have nothing else. Conversations always go there."""
    openai_session_header: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$")
    """Header that carries the key of a prompt's few-shot prefix, for routers that keep equal keys on one replica, such
    as x-user-id. Empty: none."""
    openai_timeout: float = Field(default=3600.0, gt=0)
    """Timeout for one completion, in seconds. A request that timed out is not sent again."""
    openai_concurrency: int = Field(default=32, ge=1)
    """Maximum number of concurrent requests to the endpoint; each sample is one request."""

    start_empty: bool = False
    """Start without a model if none is configured. LoadModel, or the gateway of which this is a worker, then says what
    to load."""

    worker_of_gateway: bool = False
    """This server is a worker: it starts empty if no model is configured, is ready once it has loaded what a gateway
    wants, and hands unfinished samples back to the gateway when it stops."""

    worker_target: str = ""
    """If set, this server is a gateway and runs no engine: host:port or dns:///host:port. Each address of the name is a
    worker, which is a server like this one (a headless Service). Several are separated by commas. `model` is then
    loaded by the workers, and `max_waiting` applies to the gateway's queue, over all models."""
    worker_tls_ca_file: Path | None = None
    """Gateway: CA certificates for the workers (PEM). None: connect to workers without TLS."""
    worker_tls_cert_file: Path | None = None
    """Gateway: its client certificate for workers (PEM), for mutual TLS."""
    worker_tls_key_file: Path | None = None
    """Gateway: private key of the client certificate (PEM)."""
    worker_tls_name: str = ""
    """Gateway: name in every worker's certificate. Empty: the host of the first target."""
    worker_resolve_seconds: float = Field(default=5.0, gt=0)
    """Gateway: seconds between look-ups of the target's addresses."""
    worker_probe_seconds: float = Field(default=1.0, gt=0)
    """Gateway: seconds between two inquiries what a worker has loaded."""
    worker_attempts: int = Field(default=3, ge=1)
    """Gateway: maximum number of workers that may fail a sample, each another one if possible. Then its request fails
    with UNAVAILABLE."""
    worker_wait_seconds: float = Field(default=30.0, ge=0)
    """Gateway: how long samples wait while no worker serves their model. Then their requests fail with UNAVAILABLE.
    Raise it if workers are started on demand."""
    worker_lost_seconds: float = Field(default=60.0, gt=0)
    """Gateway: what a worker owes is sent to others when it has not responded to inquiries for this long. (A connection
    that breaks has this effect at once. A worker that stops has the gateway's `drain_seconds`, if those are longer.)"""
    worker_silence_seconds: float = Field(default=900.0, gt=0)
    """Gateway: what a worker owes is sent to others, and the worker set aside, when it responds but has completed no
    sample for this long. Must be longer than the longest completion takes."""

    simulated_speed: float = Field(default=1.0, ge=0, le=1e6)
    """Speed relative to the recorded model. 0: no delay."""
    simulated_seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the simulation. A different seed gives different completions and a different revision."""

    @field_validator("vllm_args", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f'is not a JSON object ({error}); example: {{"max_num_seqs": 64}}') from None

    @model_validator(mode="after")
    def _endpoint_is_set(self) -> Self:
        if self.engine == "openai" and not self.openai_base_url.startswith(("http://", "https://")):
            raise ValueError("engine openai needs openai_base_url; example: http://127.0.0.1:8000/v1")
        if self.engine == "vllm-grpc" and not _ADDRESS.fullmatch(self.vllm_grpc_address):
            raise ValueError("engine vllm-grpc needs vllm_grpc_address as host:port; example: 127.0.0.1:50051")
        if (self.vllm_grpc_tls_cert_file is None) != (self.vllm_grpc_tls_key_file is None):
            raise ValueError("vllm_grpc_tls_cert_file and vllm_grpc_tls_key_file must be set together, or neither")
        if self.vllm_sleep_level == 2 and self.vllm_max_loras:
            raise ValueError(
                "vllm_sleep_level 2 drops weights that adapters have wrapped: use level 1 with vllm_max_loras"
            )
        if self.engine == "vllm" and self.dtype == "float64":
            raise ValueError("dtype float64 is not supported by vLLM: use float32, or engine transformers")
        return self
