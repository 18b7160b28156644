"""The version of the rules."""

from __future__ import annotations

VERSION = 1
"""Raised whenever a rule for seeds or rows comes to decide otherwise: part of the configurations that rules decide
under, and of a run's identity."""
