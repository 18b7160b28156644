"""The corpus programs are data: nothing on this machine imports them, whatever their names."""

from __future__ import annotations

collect_ignore = ["programs"]
