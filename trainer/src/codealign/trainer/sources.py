"""From what a specification names to what is there: the base model's folder and revision, the dataset's URL."""

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
    """The model that is trained."""

    folder: Path
    name: str
    """For people: the hub id, or the folder's name."""
    revision: str
    files: ModelFiles
    source: str = ""
    """Where another machine gets it: an fsspec URL, or hf://<hub id>@<commit>. Empty: it is a folder of this one."""


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
    return BaseModel(folder, name, found, files, _source(spec.model, folder))


def fetch_model(job: Job, cache: Path) -> Path:
    """The base model's folder in a pod that does not see the disk of whoever wrote the job.

    Raises:
        NotFound: It is a folder that this pod does not have.
        FailedPrecondition: What its URL holds is another revision than the job's.
        Unavailable: It could not be fetched.
    """
    if job.model.is_dir():
        return job.model
    source = job.model_source
    if source.startswith(_HUB):
        name, _, commit = source.removeprefix(_HUB).partition("@")
        return _from_hub(name, commit or None)
    if not source:
        raise NotFound(
            f"spec.model: the pods that train have no folder {job.model}: mount it there too "
            "(trainer.workers.extraVolumes), or give a hub id or the URL of a folder in S3"
        )
    folder = _downloaded(source, cache)
    if (found := revision(folder, cache)) != job.model_revision:
        raise FailedPrecondition(
            f"spec.model {source} is revision {found} here, and {job.model_revision} when the training was prepared: "
            "it was overwritten; put it where it stays as it is and give that URL"
        )
    return folder


def _source(model: str, folder: Path) -> str:
    if "://" in model:
        return "" if urlsplit(model).scheme == "file" else model
    if folder.parent.name == "snapshots":  # of the hub's cache, which names it by its commit
        return f"{_HUB}{model}@{folder.name}" if _HUB_ID.fullmatch(model) else ""
    return ""


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


def _from_hub(name: str, commit: str | None = None) -> Path:
    try:  # who trains from folders does not need it
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"spec.model {name} is no folder here, and fetching it from the hub needs {error.name}: give a folder, or "
            "pip install 'codealign-trainer[training]'"
        ) from error

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_MODEL_FILES))
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
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several pods may share the cache and fetch the same at once.
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
        raise NotFound(f"spec.model {url}: there is no such folder") from error
    except Exception as error:  # each file system has errors of its own, of its transport too
        raise Unavailable(f"spec.model {url} cannot be fetched: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
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
    except Exception as error:  # each file system has errors of its own, of its transport too
        raise Unavailable(f"spec.dataset {dataset} cannot be read: {type(error).__name__}: {error}") from error
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
