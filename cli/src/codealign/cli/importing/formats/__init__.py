"""Registry of formats: each module of this package defines one as `FORMAT`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from codealign.cli.failures import Failure
from codealign.cli.importing.format import Format
from codealign.common.text import unknown


@cache
def formats() -> Mapping[str, Format]:
    """Return the formats by name."""
    found = [importlib.import_module(f"{__name__}.{entry.name}").FORMAT for entry in pkgutil.iter_modules(__path__)]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def named(name: str) -> Format:
    """Return a format by name.

    Raises:
        Failure: There is no such format; names the valid ones.
    """
    found = formats().get(name)
    if found is None:
        raise Failure(f"--format: {unknown('format', name, formats())}")
    return found
