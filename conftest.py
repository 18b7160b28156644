"""Plugins for every test of the repository."""

from __future__ import annotations

pytest_plugins = ["tests.tiers", "tests.durations"]
