"""Which layout of GPUs serves a model, by formula. Pure functions; docs/gpus.md has the tables that they compute.

The memory of one GPU holds, with tensor parallelism over t GPUs:
- weights: parameters x 2 bytes / t (bfloat16; the embeddings are split too);
- keys and values of one token: 2 x layers x key-value heads x head size x 2 bytes / t, where t GPUs hold copies if
  there are fewer heads than GPUs;
- activations of one step, after the shapes of a gated MLP, and the logits of the samples in float32, twice;
- CUDA's context, graphs and fragmentation, a fixed amount.
The rest is the KV cache. A shared prompt prefix is in it once, so counting each sample with its whole prompt errs on
the high side.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
BYTES = 2
"""Per number, in bfloat16."""
MAX_CONTEXT = 4096
"""Tokens of prompt and answer together. The longest prompts (8 few-shot examples) have about 1,520 tokens; 2,048 are
for the answer."""
SAMPLE_TOKENS = 1600
"""Tokens of a typical sample with its prompt: about 1,540 for concepts, 1,560 for instructions, 1,330 for responses."""
MOST_SAMPLES = 256
"""Samples per worker above which decoding gains little, and vLLM's default limit."""
FEWEST_SAMPLES = 32
"""Samples below which a worker reads its weights for too few tokens; then the model is split over more GPUs."""
STEP_TOKENS = 8192
"""Prompt tokens of one step (vLLM's max_num_batched_tokens)."""
SHARE = 0.9
"""Share of a GPU that vLLM takes (vllm_gpu_memory_utilization)."""
CUDA_BYTES = 2 * GIB
PARALLEL = (1, 2, 4, 8)
"""Tensor parallel sizes: the GPUs of one machine, connected directly."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's shape, from its config.json."""

    name: str
    """Hub id."""
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A class of GPUs."""

    name: str
    memory: int
    """Usable bytes."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker's share of a model."""

    gpus: int
    """Tensor parallel size."""
    weights: int
    """Bytes per GPU."""
    activations: int
    """Bytes per GPU."""
    token: int
    """Bytes per GPU of one token's keys and values."""
    cache_tokens: int
    """Tokens that the KV cache holds. Negative: the weights do not fit."""

    @property
    def samples(self) -> int:
        """Typical samples that fit at once, at most `MOST_SAMPLES`."""
        return max(0, min(MOST_SAMPLES, self.cache_tokens // SAMPLE_TOKENS))


@dataclass(frozen=True, slots=True)
class Layout:
    """Workers behind the gateway."""

    worker: Worker
    replicas: int

    @property
    def samples(self) -> int:
        """Typical samples at once, over all workers."""
        return self.replicas * self.worker.samples


def token_bytes(model: Architecture, parallel: int) -> int:
    """Return the bytes per GPU of one token's keys and values.

    Args:
        model: The model.
        parallel: Tensor parallel size.
    """
    heads = -(-model.key_value_heads // parallel)
    return 2 * model.layers * heads * model.head_size * BYTES


def worker(model: Architecture, gpu: Gpu, parallel: int) -> Worker:
    """Return what a worker on `parallel` GPUs holds."""
    weights = model.parameters * BYTES // parallel
    activations = STEP_TOKENS * (4 * model.hidden + 3 * model.intermediate // parallel) * BYTES
    activations += 2 * MOST_SAMPLES * model.vocabulary * 4
    free = int(gpu.memory * SHARE) - weights - activations - CUDA_BYTES
    token = token_bytes(model, parallel)
    return Worker(parallel, weights, activations, token, free // token)


def layout(model: Architecture, gpu: Gpu, gpus: int) -> Layout | None:
    """Return the layout for a number of GPUs, or None if the model does not fit.

    The smallest tensor parallel size that holds `FEWEST_SAMPLES` is taken, since every split costs communication and
    every further worker adds throughput. If none does, the largest that holds one sample of `MAX_CONTEXT`.

    Args:
        model: The model.
        gpu: The class of the GPUs.
        gpus: How many there are.
    """
    fitting = [
        found
        for parallel in PARALLEL
        if parallel <= gpus and model.heads % parallel == 0
        for found in [worker(model, gpu, parallel)]
        if found.cache_tokens >= MAX_CONTEXT
    ]
    if not fitting:
        return None
    chosen = next((found for found in fitting if found.samples >= FEWEST_SAMPLES), fitting[-1])
    return Layout(chosen, gpus // chosen.gpus)
