"""Plugin that vLLM loads into each of its processes (entry point `vllm.general_plugins` in pyproject.toml)."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when its parent has died.

    vLLM's engine process survives a killed server and would hold the model's memory forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # the server itself
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
