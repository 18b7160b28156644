"""Find what a specification names: the base model's directory and revision, and the dataset's URL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import grpc

from codealign.api.dataset.v1 import dataset_pb2
from codealign.api.training.v1 import training_pb2 as api
from codealign.common.clients import Clients
from codealign.common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, describe
from codealign.common.model_identity import revision
from codealign.trainer.model_files import ModelFiles, read_model_files
from codealign.trainer.sft.job import Job, TrainingError
from codealign.trainer.sft.rows import check_columns, fingerprint

_VERSION = re.compile(r"v-[0-9a-f]{16}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB = "hf://"
_MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True)
class BaseModel:
    """The model to fine-tune."""

    folder: Path
    name: str
    """Display name: the hub id, or the directory's name."""
    revision: str
    files: ModelFiles
    source: str = ""
    """Where another machine can download it: an fsspec URL, or hf://<hub id>@<commit>. Empty: only on this machine."""


@dataclass(frozen=True)
class TrainingData:
    """The rows to train on."""

    url: str
    name: str
    """Display name: the version's name, or the URL."""
    identity: str
    """What the result depends on: the version's name, or the content's hash."""
    rows: int


async def find_model(spec: api.TrainingSpec, cache: Path) -> BaseModel:
    """Find the base model, and download it if it is not on this machine.

    Raises:
        NotFound: The directory or model does not exist.
        InvalidArgument: The model cannot be trained.
        FailedPrecondition: The model is damaged, or its revision is not the specified one.
        Unavailable: The download failed.
    """
    return await asyncio.to_thread(_find_model, spec, cache)


def _find_model(spec: api.TrainingSpec, cache: Path) -> BaseModel:
    folder, name = _model_folder(spec.model, cache)
    files = read_model_files(folder)
    found = revision(folder, cache)
    if spec.model_revision and spec.model_revision != found:
        raise FailedPrecondition(
            f"spec.model {spec.model} is revision {found}, not {spec.model_revision}: give that model, or leave "
            "spec.model_revision empty"
        )
    return BaseModel(folder, name, found, files, _source(spec.model, folder))


def fetch_model(job: Job, cache: Path) -> Path:
    """Return the base model's directory in a pod that does not share the disk of the job's writer.

    Raises:
        NotFound: The model is a directory that this pod does not have.
        FailedPrecondition: The URL now has a revision other than the job's.
        Unavailable: The download failed.
    """
    if job.model.is_dir():
        return job.model
    source = job.model_source
    if source.startswith(_HUB):
        name, _, commit = source.removeprefix(_HUB).partition("@")
        return _from_hub(name, commit or None)
    if not source:
        raise NotFound(
            f"spec.model: training pods have no folder {job.model}: mount it there (trainer.workers.extraVolumes), or "
            "give a hub id or an S3 URL"
        )
    folder = _downloaded(source, cache)
    if (found := revision(folder, cache)) != job.model_revision:
        raise FailedPrecondition(
            f"spec.model {source} is revision {found}, but was {job.model_revision} when the training was prepared: "
            "it was overwritten; give a URL whose content does not change"
        )
    return folder


def _source(model: str, folder: Path) -> str:
    if "://" in model:
        return "" if urlsplit(model).scheme == "file" else model
    if folder.parent.name == "snapshots":  # in the hub's cache, where a snapshot's directory is named by its commit
        return f"{_HUB}{model}@{folder.name}" if _HUB_ID.fullmatch(model) else ""
    return ""


def _model_folder(source: str, cache: Path) -> tuple[Path, str]:
    if "://" in source:
        parts = urlsplit(source)
        path = Path(unquote(parts.path))
        folder = path if parts.scheme == "file" else _downloaded(source, cache)
        if not folder.is_dir():
            raise NotFound(f"spec.model {source}: the folder does not exist")
        return folder, path.name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve(), folder.resolve().name
    if folder.is_absolute() or source.startswith((".", "~")) or not _HUB_ID.fullmatch(source):
        raise NotFound(f"spec.model {source}: the folder does not exist; give a folder, a hub id or an artifact URL")
    return _from_hub(source), source


def _from_hub(name: str, commit: str | None = None) -> Path:
    try:  # not needed to train from directories
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"spec.model {name} is not a local folder, and downloading it from the hub needs {error.name}: give a "
            "folder, or pip install 'codealign-trainer[training]'"
        ) from error

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_MODEL_FILES))
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise NotFound(
            f"spec.model {name} is neither a folder nor a public model on the hub: check the name; for a gated or "
            "private model, accept its terms and set HF_TOKEN"
        ) from error
    except Exception as error:  # the hub client passes on its transport's errors
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise Unavailable(
            f"spec.model {name} is not a folder or in the local hub cache, and the hub cannot be reached{offline}: "
            f"restore the connection, or download the model and give its folder ({type(error).__name__})"
        ) from error


def _downloaded(url: str, cache: Path) -> Path:
    """Return the local copy of a remote directory; it appears only when it is complete."""
    target = cache / "models" / hashlib.sha256(url.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several pods may share the cache and download the same model concurrently.
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    partial.chmod(0o755)
    try:
        system, path = fsspec.core.url_to_fs(url)
        system.get(path.rstrip("/") + "/", f"{partial}/", recursive=True)
        with contextlib.suppress(OSError):
            partial.rename(target)
        if not target.is_dir():
            raise OSError(f"{partial} cannot be renamed")
    except FileNotFoundError as error:
        raise NotFound(f"spec.model {url}: the folder does not exist") from error
    except Exception as error:  # every file system has its own errors and its transport's
        raise Unavailable(f"spec.model {url} cannot be downloaded: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


async def find_data(dataset: str, clients: Clients) -> TrainingData:
    """Find the dataset by the name of a published version or by URL.

    Raises:
        NotFound: The version does not exist.
        InvalidArgument: The dataset cannot be trained on.
        FailedPrecondition: The dataset is a version, but no dataset service is configured.
        Unavailable: The dataset service or the dataset's storage is unavailable.
    """
    version = _VERSION.fullmatch(dataset)
    url = await _version_url(dataset, clients) if version else _data_url(dataset)
    try:
        rows = await asyncio.to_thread(check_columns, url)
        identity = dataset if version else f"sha256:{await asyncio.to_thread(fingerprint, url)}"
    except TrainingError as error:
        raise InvalidArgument("spec.dataset", str(error)) from error
    except Exception as error:  # every file system has its own errors and its transport's
        raise Unavailable(f"spec.dataset {dataset} cannot be read: {type(error).__name__}: {error}") from error
    return TrainingData(url, dataset, identity, rows)


def _data_url(dataset: str) -> str:
    if "://" in dataset:
        return dataset
    path = Path(dataset).expanduser()
    if path.exists():
        return str(path.resolve())
    if "/" in dataset or dataset.startswith((".", "~")):
        raise NotFound(f"spec.dataset {dataset}: the folder or file does not exist")
    raise InvalidArgument(
        "spec.dataset", f"is {dataset!r}; must be a published version's name (v-…), or a URL or path of Parquet files"
    )


async def _version_url(name: str, clients: Clients) -> str:
    if not clients.addresses.dataset:
        raise FailedPrecondition(
            f"spec.dataset {name} is a published version, but the dataset service is not configured: set "
            "CODEALIGN_TRAINER_DATASET_ADDRESS, or give the version's URL"
        )
    try:
        answer = await clients.call(clients.dataset.GetVersion, dataset_pb2.GetVersionRequest(name=name), timeout=30)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise NotFound(f"spec.dataset {name}: {describe(error)}") from error
        raise Unavailable(f"the dataset service cannot resolve version {name}: {describe(error)}") from error
    return answer.version.url
