"""Limits of the executions that judge a solution."""

from __future__ import annotations

from codealign.api.sandbox.v1 import sandbox_pb2 as sb

_MIB = 2**20
CALLS_LIMITS = sb.Limits(wall_seconds=60, cpu_seconds=60, memory_bytes=2048 * _MIB, output_bytes=_MIB)
"""Limits for all calls of one execution together (EvalPlus: 60 s and 4 GiB for each of its two parts)."""
CHECK_LIMITS = sb.Limits(wall_seconds=20, cpu_seconds=20, memory_bytes=2048 * _MIB)
