"""How the transformers engine uses the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes and bounds."""

    slots: int = 16
    """Samples decoded at once."""
    workers: int = 1
    """Threads that decode, each a batch of its own; slots and memory are divided among them."""
    threads: int = 2
    """CPU threads of each worker's matrix products."""
    prefill_chunk: int = 256
    """Prompt tokens computed between two decode steps: the longest wait of a cancelled call."""
    kv_cache_bytes: int = 4 * 2**30
    """Keys and values of live rows; rows start only where all of them fit at their longest."""
    prefix_cache_bytes: int = 1536 * 2**20
    """Keys and values of prompt prefixes kept for reuse."""
    idle_cache_bytes: int = 256 * 2**20
    """An idle engine gives back a batch cache larger than this."""
    max_waiting: int = 1024
    """Samples waiting for a slot; beyond it requests are refused."""
    max_context: int = 0
    """Tokens of prompt and completion, if less than the model's own length; 0 is the model's."""
    pack_weights: bool = True
    """On CPU, keep linear weights in oneDNN's layout."""

    def of_each_worker(self) -> list[EngineOptions]:
        """Return each worker's share; a worker without a slot is left out."""
        number = min(self.workers, self.slots)
        return [
            replace(
                self,
                workers=1,
                slots=len(range(at, self.slots, number)),
                kv_cache_bytes=self.kv_cache_bytes // number,
                prefix_cache_bytes=self.prefix_cache_bytes // number,
                idle_cache_bytes=self.idle_cache_bytes // number,
                max_waiting=len(range(at, self.max_waiting, number)),
            )
            for at in range(number)
        ]
