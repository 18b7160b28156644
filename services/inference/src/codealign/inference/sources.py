"""Model sources (a folder, a hub id or an artifact URL) and the local folder that contains the model."""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from codealign.common.errors import ConfigurationError, FailedPrecondition
from codealign.common.logs import get_logger
from codealign.inference.weights import DoesNotFit

log = get_logger(__name__)

# Files that a model is loaded from; optimizer states and logs beside them are not downloaded.
FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
"""What `local_source` needs of a model whose weights another server has."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class SourceUnreachable(ConfigurationError):
    """The source may be valid, but its server does not respond."""


def key_of(source: str) -> str:
    """Return the canonical form of a source: equal for every spelling of the same source."""
    local = _local_path(source)
    if local is None:
        return source.rstrip("/")
    return str(local.resolve()) if local.exists() or _URL.match(source) else source.rstrip("/")


def default_name(source: str) -> str:
    """Return the default name of a model: the last part of its source."""
    path = urlparse(source).path if _URL.match(source) else source
    return unquote(path).rstrip("/").rpartition("/")[2] or source


def is_remote(source: str) -> bool:
    """Return whether a source is a URL whose files are copied."""
    return _local_path(source) is None


def local_source(source: str, cache_folder: Path, files: Sequence[str] = FILES) -> Path:
    """Return the local folder or file of a source, after downloading it if needed.

    A `file://` URL is used in place. Other URLs are copied to `cache_folder/artifacts` under a hash of the URL and of
    each file's size and ETag or modification time, so an overwritten artifact gets a new copy. A copy gets its final
    name only when it is complete.

    Args:
        source: A directory, a hub id or a URL.
        cache_folder: Where copies are kept.
        files: Patterns of the files to download.

    Raises:
        ConfigurationError: The model does not exist; the message says what to do.
        SourceUnreachable: The source's server does not respond.
        DoesNotFit: The disk is too small.
    """
    local = _local_path(source)
    if local is None:
        return _downloaded(source.rstrip("/"), cache_folder, files)
    if local.exists():
        return local
    if _URL.match(source) or local.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise ConfigurationError(f"model folder {source} does not exist: give a folder or a hub id (owner/name)")
    return _from_hub(source, files)


def require_revision(source: str, revision: str, expected: str) -> None:
    """Refuse a model whose revision is not the expected one.

    Raises:
        FailedPrecondition: The revisions differ; the message has both.
    """
    if expected and revision != expected:
        raise FailedPrecondition(
            f"{source} is revision {revision}, not {expected}, and was not loaded: give the source of that revision, "
            "or leave expected_revision empty"
        )


def _local_path(source: str) -> Path | None:
    """Return the source as a local path, or None for a remote URL."""
    if not _URL.match(source):
        return Path(source).expanduser()
    url = urlparse(source)
    return Path(unquote(url.path)) if url.scheme.lower() == "file" and url.netloc in ("", "localhost") else None


def _from_hub(source: str, files: Sequence[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(files)))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ConfigurationError(
            f"model {source} is neither a folder nor a public model on the hub: check the name; for a gated or private "
            "model, accept its terms and set HF_TOKEN"
        ) from error
    except Exception as error:  # the hub client passes on its transport's errors
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        kind = ConfigurationError if offline else SourceUnreachable
        raise kind(
            f"model {source} is not a folder or in the local hub cache, and the hub cannot be reached{offline}: "
            f"restore the connection, or download the model and give its folder ({type(error).__name__})"
        ) from error


def _downloaded(url: str, cache_folder: Path, patterns: Sequence[str]) -> Path:
    """Return the local copy of an artifact."""
    filesystem, root = _filesystem(url)
    try:
        files, is_file = _listing(filesystem, root, patterns)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{url} does not exist: check the URL") from error
    except Exception as error:  # every file system has its own error types
        raise SourceUnreachable(f"{url} cannot be listed ({type(error).__name__}: {error})") from error
    if not files:
        raise ConfigurationError(f"{url} contains no model files ({', '.join(patterns)}): check the URL")
    key = hashlib.sha256(
        "\n".join([url, *(f"{name} {size} {mark}" for name, size, mark in files)]).encode()
    ).hexdigest()
    shelf = cache_folder / "artifacts"
    shelf.mkdir(parents=True, exist_ok=True)
    # The artifact's name makes the cache readable for people.
    folder = shelf / f"{key[:16]}-{default_name(url)}"
    with (shelf / f"{key[:16]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # servers that want the same artifact download it once
        if not folder.is_dir():
            _fetch(filesystem, root, files, is_file, folder, url)
    return folder / files[0][0] if is_file else folder


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigurationError(f"{url}: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{url}: unsupported URL scheme ({error})") from error
    return filesystem, root


def _listing(filesystem: Any, root: str, patterns: Sequence[str]) -> tuple[list[tuple[str, int, str]], bool]:
    """Return name, size and version mark of each relevant file, sorted, and whether the root itself is the file."""
    filesystem.invalidate_cache()
    is_file = filesystem.info(root)["type"] == "file"
    entries = [filesystem.info(root)] if is_file else filesystem.ls(root, detail=True)
    files = []
    for entry in entries:
        name = entry["name"].rstrip("/").rpartition("/")[2]
        if entry["type"] == "file" and (is_file or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)):
            files.append((name, int(entry["size"]), str(filesystem.ukey(entry["name"]))))
    return sorted(files), is_file


def _fetch(
    filesystem: Any, root: str, files: list[tuple[str, int, str]], is_file: bool, folder: Path, url: str
) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left over from a killed process
    size, free = sum(size for _, size, _ in files), shutil.disk_usage(folder.parent).free
    if size > free:
        raise DoesNotFit(
            f"{url} has {size / 1e9:.1f} GB but {folder.parent} has only {free / 1e9:.1f} GB free: free disk space"
        )
    partial.mkdir()
    log.info("artifact_download", url=url, bytes=size)
    try:
        for name, expected, _ in files:
            filesystem.get_file(root if is_file else f"{root.rstrip('/')}/{name}", str(partial / name))
            if (got := (partial / name).stat().st_size) != expected:
                raise OSError(f"{name} has {got} bytes, but its listing said {expected}")
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SourceUnreachable(f"{url} cannot be downloaded ({type(error).__name__}: {error})") from error
    partial.replace(folder)
