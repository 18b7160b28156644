"""Version of the rules."""

from __future__ import annotations

VERSION = 2
"""Incremented whenever a rule for seeds or rows decides differently. Part of the configurations of rules and of a run's
identity."""
