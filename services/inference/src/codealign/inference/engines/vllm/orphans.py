"""Loaded by vLLM into each of its processes (the entry point `vllm.general_plugins` in pyproject.toml)."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when the one that started it is gone.

    vLLM's engine process survives a server that was killed, and would keep the model's memory for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # the server itself
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
