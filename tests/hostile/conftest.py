"""Programs of the corpus are data here: whatever they are named, nothing on this machine imports them."""

from __future__ import annotations

collect_ignore = ["programs"]
