"""From what a specification names to what is there: the base model's folder and revision, the dataset's URL."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
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
from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.rows import check_columns, fingerprint

_VERSION = re.compile(r"v-[0-9a-f]{16}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True)
class BaseModel:
    """The model that is trained."""

    folder: Path
    name: str
    """For people: the hub id, or the folder's name."""
    revision: str
    files: ModelFiles


@dataclass(frozen=True)
class TrainingData:
    """The rows that it is trained on."""

    url: str
    name: str
    """For people: the version's name, or the URL."""
    identity: str
    """What the result depends on: the version's name, or the content's hash."""
    rows: int


async def find_model(spec: api.TrainingSpec, cache: Path) -> BaseModel:
    """The base model, fetched where it is not on this machine.

    Raises:
        NotFound: There is no such folder or model.
        InvalidArgument: It is none that can be trained.
        FailedPrecondition: It is damaged, or of another revision than the specification says.
        Unavailable: It could not be fetched.
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
    return BaseModel(folder, name, found, files)


def _model_folder(source: str, cache: Path) -> tuple[Path, str]:
    if "://" in source:
        parts = urlsplit(source)
        path = Path(unquote(parts.path))
        folder = path if parts.scheme == "file" else _downloaded(source, cache)
        if not folder.is_dir():
            raise NotFound(f"spec.model {source}: there is no such folder")
        return folder, path.name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve(), folder.resolve().name
    if folder.is_absolute() or source.startswith((".", "~")) or not _HUB_ID.fullmatch(source):
        raise NotFound(f"spec.model {source}: there is no such folder; give a folder, a hub id or an artifact URL")
    return _from_hub(source), source


def _from_hub(name: str) -> Path:
    try:  # who trains from folders does not need it
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"spec.model {name} is no folder here, and fetching it from the hub needs {error.name}: give a folder, or "
            "pip install 'codealign-trainer[training]'"
        ) from error

    try:
        return Path(snapshot_download(name, allow_patterns=_MODEL_FILES))
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise NotFound(
            f"spec.model {name} is neither a folder nor a public model of the hub: check the name; for a gated or "
            "private one, accept its terms and set HF_TOKEN"
        ) from error
    except Exception as error:  # the hub's client raises its transport's errors as they come
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise Unavailable(
            f"spec.model {name} is no folder, is not in the local hub cache, and the hub cannot be reached{offline}: "
            f"connect, or download it and give its folder ({type(error).__name__})"
        ) from error


def _downloaded(url: str, cache: Path) -> Path:
    """A copy of a remote folder, whole or not there."""
    target = cache / "models" / hashlib.sha256(url.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        system, path = fsspec.core.url_to_fs(url)
        system.get(path.rstrip("/") + "/", f"{partial}/", recursive=True)
        partial.rename(target)
    except FileNotFoundError as error:
        raise NotFound(f"spec.model {url}: there is no such folder") from error
    except (OSError, ValueError, ImportError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Unavailable(f"spec.model {url} cannot be fetched: {error}") from error
    return target


async def find_data(dataset: str, clients: Clients) -> TrainingData:
    """The dataset, by the name of a published version or by URL.

    Raises:
        NotFound: There is no such version.
        InvalidArgument: It cannot be trained on.
        FailedPrecondition: A version is named and no dataset service is set.
        Unavailable: The dataset service is away.
    """
    version = _VERSION.fullmatch(dataset)
    url = await _version_url(dataset, clients) if version else _data_url(dataset)
    try:
        rows = await asyncio.to_thread(check_columns, url)
        identity = dataset if version else f"sha256:{await asyncio.to_thread(fingerprint, url)}"
    except TrainingError as error:
        raise InvalidArgument("spec.dataset", str(error)) from error
    return TrainingData(url, dataset, identity, rows)


def _data_url(dataset: str) -> str:
    if "://" in dataset:
        return dataset
    path = Path(dataset).expanduser()
    if path.exists():
        return str(path.resolve())
    if "/" in dataset or dataset.startswith((".", "~")):
        raise NotFound(f"spec.dataset {dataset}: there is no such folder or file")
    raise InvalidArgument(
        "spec.dataset", f"is {dataset!r}: a published version's name (v-…), or a URL or path of Parquet files"
    )


async def _version_url(name: str, clients: Clients) -> str:
    if not clients.addresses.dataset:
        raise FailedPrecondition(
            f"spec.dataset {name} is a published version, and no dataset service is set: set "
            "CODEALIGN_TRAINER_DATASET_ADDRESS, or give the version's URL"
        )
    try:
        answer = await clients.call(clients.dataset.GetVersion, dataset_pb2.GetVersionRequest(name=name), timeout=30)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise NotFound(f"spec.dataset {name}: {describe(error)}") from error
        raise Unavailable(f"the dataset service does not say where {name} lies: {describe(error)}") from error
    return answer.version.url
