"""The inference service's settings: `CODEALIGN_INFERENCE_*`, or flags of the same names."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from codealign.common.settings import ServerSettings


class InferenceSettings(ServerSettings):
    """Which model is served, by which engine, with how much of the machine."""

    model_config = SettingsConfigDict(env_prefix="CODEALIGN_INFERENCE_")

    engine: Literal["transformers", "replay"] = "transformers"
    """transformers: a model in this process. replay: completions that were recorded before."""
    model: str = Field(default="", description="Folder or hub id; for the replay engine the recording's file.")
    """Folder or hub id; for the replay engine the recording's file."""
    model_name: str = ""
    """What requests call the model. Empty: the last part of `model`."""
    record: Path | None = None
    """Append every completion to this file, and serve those that it already holds."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """auto: float32 on CPU, bfloat16 on CUDA. float64 makes completions independent of the batch."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto: CUDA where there is one."""
    slots: int = Field(default=16, ge=1, le=1024)
    """Samples decoded at once."""
    threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """CPU threads of the model; every core that the process may use unless set."""
    prefill_chunk: int = Field(default=256, ge=16)
    """Prompt tokens computed between two decode steps."""
    kv_cache_bytes: int = Field(default=4 * 2**30, gt=0)
    """Keys and values of the samples being decoded: one starts only where all fit at their longest."""
    prefix_cache_bytes: int = Field(default=1536 * 2**20, ge=0)
    """Keys and values of prompt prefixes kept for reuse."""
    max_waiting: int = Field(default=1024, ge=1)
    """Samples waiting for a slot; beyond it requests are refused with RESOURCE_EXHAUSTED."""
    max_context: int = Field(default=0, ge=0)
    """Tokens of prompt and completion, if less than the model's own context; 0: the model's."""
    pack_weights: bool = True
    """On CPU, keep linear weights in oneDNN's layout, which is several times as fast on AMD processors."""
    cache_dir: Path = Field(default_factory=lambda: Path("~/.cache/codealign").expanduser())
    """Where digests of model files are remembered."""


class CommandLineSettings(InferenceSettings):
    """The same with flags (`--model`, `--engine`, `--record`, `--port`, ...), which win over the environment."""

    model_config = SettingsConfigDict(cli_parse_args=True, cli_prog_name="codealign-inference", cli_kebab_case=True)
