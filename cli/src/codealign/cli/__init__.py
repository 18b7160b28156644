"""The `codealign` command."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("codealign-cli")
