"""Estimate of a training's memory and disk, by formula. Pure functions.

Components of the memory:
- weights, gradients and optimizer state, per parameter. Adafactor keeps a matrix's row and column sums instead of its
  elements (arXiv 1804.04235), AdamW two values per parameter;
- activations, after Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (arXiv
  2205.05198, section 4), adapted to the models trained here: RMS norms that keep a float32 copy, a gated MLP, no
  dropout masks, and attention that does not store its scores. With checkpointing, a layer keeps only its input, and one
  layer at a time is recomputed (their section 4.3);
- the output layer, which TRL computes in tiles of 4,096 tokens by 32,768 vocabulary entries, with a float32 gradient.
  Without Triton, which works in place, a tile takes five more float32 copies (measured);
- the process itself: Python and PyTorch, or a CUDA context.
The sum is increased by a tenth. For an 88M-parameter Llama on a CPU (float32 and bfloat16, both optimizers, adapters,
checkpointing, one and two workers), the estimate was 13 to 34 percent above the measured peak.
"""

from __future__ import annotations

from dataclasses import dataclass

from codealign.api.training.v1 import training_pb2 as api
from codealign.trainer.model_files import ModelFiles

PROCESS_BYTES = 900 * 2**20
"""Memory of a worker process with its libraries on a CPU."""
CUDA_BYTES = 1200 * 2**20
"""Memory of a CUDA context, workspaces and fragmentation."""
RESULT_EXTRA_BYTES = 32 * 2**20
"""Size of tokenizer, model card and configuration."""

MARGIN = 1.1

_TILE_TOKENS = 4096
_TILE_VOCABULARY = 32_768
_AUTO_ACTIVATIONS = 2**30
_AUTO_ROWS = 8


@dataclass(frozen=True)
class Needs:
    """Resource needs in bytes."""

    memory: int
    """Memory per GPU (one worker), or main memory for all workers."""
    disk: int


def estimate(model: ModelFiles, spec: api.TrainingSpec, *, rows_at_once: int, device: str) -> Needs:
    """Estimate the needs of a training.

    Args:
        model: The base model.
        spec: The specification with all defaults filled in.
        rows_at_once: Rows that each worker processes at once.
        device: "cpu" or "cuda".
    """
    size = 2 if spec.dtype == "bfloat16" else 4
    sharded = spec.workers > 1 and spec.sharding == "fsdp"
    adapters = spec.HasField("lora")
    adapter_size = size if sharded else 4
    weights = model.parameters * size
    trained = _adapter_parameters(model, spec.lora.rank) if adapters else model.parameters
    trained_size = adapter_size if adapters else size
    gradients = trained * trained_size
    optimizer = _optimizer_bytes(model, spec, trained, trained_size)
    if adapters:
        weights += trained * adapter_size
    state = weights + gradients + optimizer
    largest = max((_elements(shape) for shape in model.tensors.values()), default=0)
    # An update works in float32 on one parameter at a time: gradient, squares, update and new value.
    update = 0 if adapters else 16 * largest
    each = activations(model, spec, rows_at_once, size) + _output_bytes(model, spec, rows_at_once, size, device)
    each = max(each, update)
    if spec.workers > 1:
        # FSDP gathers two layers, and the output layer with its gradient and the embeddings; DDP keeps a second copy of
        # the gradients in buckets.
        gathered = 2 * _layer_parameters(model) * size + 3 * model.vocabulary * model.hidden * size
        each += gathered if sharded else gradients
    if device == "cuda":
        memory = (state // spec.workers if sharded else state) + each + CUDA_BYTES
    else:
        copies = 1 if sharded else spec.workers
        training = state * copies + (each + PROCESS_BYTES) * spec.workers
        loading = (weights + PROCESS_BYTES) * spec.workers  # each worker loads the whole model first
        memory = max(training, loading)
    saved = trained * trained_size if adapters else weights
    checkpoint = saved + optimizer
    result = model.parameters * size + RESULT_EXTRA_BYTES
    if adapters:  # kept beside the merged weights
        result += saved
    return Needs(memory=int(memory * MARGIN), disk=2 * checkpoint + result)


def rows_by_size(model: ModelFiles, spec: api.TrainingSpec) -> int:
    """Return the rows at once that keep a worker's activations below 1 GiB; from 1 to 8.

    The result depends only on model and specification, so that a training is computed the same way everywhere.
    """
    size = 2 if spec.dtype == "bfloat16" else 4
    one = activations(model, spec, 1, size)
    return max(1, min(_AUTO_ROWS, _AUTO_ACTIVATIONS // max(one, 1)))


def activations(model: ModelFiles, spec: api.TrainingSpec, rows: int, size: int) -> int:
    """Return the bytes that the forward pass keeps for the backward pass.

    Args:
        model: The base model.
        spec: The specification with all defaults filled in.
        rows: Rows at once.
        size: Bytes per number.
    """
    tokens = rows * spec.max_length
    attention = 2 * model.heads * model.head_size + 2 * model.key_value_heads * model.head_size
    # Two norms with input and output in the model's precision and a float32 copy; a gated MLP keeps gate, up, the
    # activated gate and their product; queries, keys and values are kept before and after the rotation.
    kept = (6 * model.hidden + 2 * attention + 4 * model.intermediate) * size + 2 * model.hidden * 4
    if spec.HasField("lora"):  # each linear layer's output again, for the adapter
        kept += (attention + 2 * model.intermediate + 2 * model.hidden) * size
    if spec.gradient_checkpointing:
        return tokens * (model.layers * model.hidden * size + kept)
    return tokens * model.layers * kept


def _output_bytes(model: ModelFiles, spec: api.TrainingSpec, rows: int, size: int, device: str) -> int:
    tokens = min(rows * spec.max_length, _TILE_TOKENS)
    tile = tokens * min(model.vocabulary, _TILE_VOCABULARY)
    gradient = 0 if spec.HasField("lora") else model.vocabulary * model.hidden * 4
    copies = 4 if device == "cuda" else 20
    return tile * (size + copies) + gradient + 3 * rows * spec.max_length * model.hidden * 4


def _optimizer_bytes(model: ModelFiles, spec: api.TrainingSpec, trained: int, size: int) -> int:
    if spec.optimizer == "adamw":
        return 2 * trained * size
    if spec.HasField("lora"):
        rank = spec.lora.rank
        return sum(4 * (rows + columns + 2 * rank) for rows, columns in model.linear())
    return sum(4 * _factored_elements(shape) for shape in model.tensors.values())


def _factored_elements(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        return _elements(shape)
    outer = _elements(shape[:-2])
    return outer * (shape[-2] + shape[-1])


def _adapter_parameters(model: ModelFiles, rank: int) -> int:
    return sum(rank * (rows + columns) for rows, columns in model.linear())


def _layer_parameters(model: ModelFiles) -> int:
    outside = 2 * model.vocabulary * model.hidden
    return max(0, model.parameters - outside) // max(model.layers, 1)


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
