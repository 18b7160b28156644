"""Version of the rules of this package."""

from __future__ import annotations

VERSION = 3
"""Incremented whenever cases, inputs, outcomes, mutants or scores are made differently."""
