"""Data sets of the Hugging Face hub: their files are downloaded to the hub's cache and imported from there."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from codealign.cli.failures import Failure
from codealign.cli.importing.files import is_supported
from codealign.cli.importing.reading import Source
from codealign.common.text import encodable

_MOST_ID = 200
"""Characters of an id. A longer text may be no path either: the system refuses to look for it."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Return whether a text may be the id of a data set rather than a path."""
    return len(text) <= _MOST_ID and bool(_ID.fullmatch(text)) and not is_supported(text) and not Path(text).exists()


def sources(repository: str) -> list[Source]:
    """Download the files of a data set.

    Raises:
        Failure: The hub cannot be reached, or the data set has no file that can be imported.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise Failure(
            f"no such file or directory: {repository}. To import a data set of the hub, install its client: "
            "pip install 'codealign-cli[imports]'"
        ) from None
    client = huggingface_hub.HfApi()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it logs each retry
    try:
        paths = sorted(client.list_repo_files(repository, repo_type="dataset"))
        wanted = [path for path in paths if is_supported(path)]
        if not wanted:
            raise Failure(f"{repository}: the data set has no file that can be imported")
        return [
            Source(Path(huggingface_hub.hf_hub_download(repository, path, repo_type="dataset")), f"{repository}/{path}")
            for path in wanted
        ]
    except Failure:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise Failure(
            f"no such file or directory, and no data set {repository!r} on the hub that can be loaded "
            f"({type(error).__name__}: {encodable(reason)}). Without a hub, copy its files here and name the directory"
        ) from None
