"""Generate the chart's values.schema.json from values.yaml: `make chart-schema`.

A value's schema consists of the type of its default, the comment above it as description, and keywords from comment
lines that begin with "@". `@ {settings: dataset}` stands for the settings of that service, so that a misspelt
setting is rejected before anything is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

from codealign.coordinator.settings import CoordinatorSettings
from codealign.dataset.settings import DatasetSettings
from codealign.inference.settings import InferenceSettings
from codealign.runner.pod.settings import RunnerSettings
from codealign.sandbox.settings import SandboxSettings
from codealign.trainer.cluster.settings import OperatorSettings
from codealign.trainer.settings import TrainerSettings

CHART = Path(__file__).parent / "codealign"
SCHEMA = CHART / "values.schema.json"

SETTINGS: Mapping[str, type[BaseSettings]] = {
    "dataset": DatasetSettings,
    "coordinator": CoordinatorSettings,
    "sandbox": SandboxSettings,
    "inference": InferenceSettings,
    "trainer": TrainerSettings,
    "runner": RunnerSettings,
    "operator": OperatorSettings,
}
"""Settings class of each server, by its name in directives."""
_CLIENT = {"client_ca_file", "client_cert_file", "client_key_file"}
_EVERYWHERE = {
    *("host", "port", "health_port", "metrics_port", "endpoint_file", "drain_seconds", "allow_plaintext"),
    *("tls_cert_file", "tls_key_file", "tls_client_ca_file", "log_level", "log_format"),
}
OWNED: Mapping[str, set[str]] = {
    "dataset": _EVERYWHERE | {"data_dir", "database_url", "versions_url"},
    "coordinator": _EVERYWHERE
    | _CLIENT
    | {"dataset_address", "inference_address", "sandbox_address", "training_address", "reads_only", "lease_holder"},
    "sandbox": _EVERYWHERE
    | {"backend", "isolation", "image", "docker_runtime", "platform", "runners", "slots"}
    | {"cache_dir", "runner_target"}
    | {"runner_tls_ca_file", "runner_tls_cert_file", "runner_tls_key_file", "runner_tls_name"},
    "inference": _EVERYWHERE
    | {"engine", "model", "model_name", "cache_dir", "vllm_tensor_parallel", "openai_base_url", "openai_api_key"}
    | {"vllm_grpc_address", "vllm_grpc_tokenizer"}
    | {"start_empty", "worker_of_gateway", "worker_target"}
    | {"worker_tls_ca_file", "worker_tls_cert_file", "worker_tls_key_file", "worker_tls_name"},
    "trainer": _EVERYWHERE
    | _CLIENT
    | {
        "data_dir",
        "cache_dir",
        "dataset_address",
        "inference_address",
        "backend",
        "namespace",
        "device",
        "artifacts_url",
    }
    | {"threads", "micro_batch_size", "max_restarts", "follow_seconds", "unload_wait_seconds"},
    "operator": _CLIENT
    | {
        "data_dir",
        "cache_dir",
        "dataset_address",
        "namespace",
        "device",
        "pod_template",
        "workers_per_pod",
        "artifacts_url",
    }
    | {"host", "liveness_port", "metrics_port", "log_level", "log_format"},
    "runner": _EVERYWHERE | {"name", "slots", "image_digest"},
}
"""Settings that the chart sets itself from other values, or that have no meaning in a cluster."""
_KEPT = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength")
_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "seq": "array", "map": "object"}


class CommentError(ValueError):
    """A value has no comment."""


def settings_of(service: str) -> dict[str, Any]:
    """Return the schema properties of a service's `settings`."""
    found = SETTINGS[service].model_json_schema()["properties"]
    return {name: _setting(found[name]) for name in sorted(found.keys() - OWNED[service])}


def _setting(found: Mapping[str, Any]) -> dict[str, Any]:
    # An optional path is `anyOf: [path, null]`; an unset setting is left out of the values.
    whole = next((choice for choice in found.get("anyOf", []) if choice.get("type") != "null"), found)
    return {key: whole[key] for key in _KEPT if key in whole}


def schema_of(text: str) -> dict[str, Any]:
    """Return the schema of a commented values file.

    Raises:
        CommentError: A value has no comment; the message names it.
    """
    root = yaml.compose(text)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart codealign",
        **_object(root, text.splitlines(), ""),
    }


def _object(node: yaml.MappingNode, lines: Sequence[str], path: str) -> dict[str, Any]:
    properties = {key.value: _value(key, value, lines, f"{path}{key.value}") for key, value in node.value}
    if not path:
        # Set by Helm if the chart is a subchart.
        properties["global"] = {"type": "object"}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value(key: yaml.Node, value: yaml.Node, lines: Sequence[str], path: str) -> dict[str, Any]:
    description, more = _comment(lines, key.start_mark.line, path)
    said = {"description": description}
    if service := more.pop("settings", None):
        return {**said, "type": "object", "additionalProperties": False, "properties": settings_of(service)}
    if isinstance(value, yaml.MappingNode) and value.value and not more:
        return {**said, **_object(value, lines, f"{path}.")}
    return {**said, "type": _TYPES[value.tag.rpartition(":")[2]], **more}


def _comment(lines: Sequence[str], line: int, path: str) -> tuple[str, dict[str, Any]]:
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    above: list[str] = []
    while line and lines[line - 1].startswith(f"{indent}# "):
        line -= 1
        above.insert(0, lines[line].removeprefix(f"{indent}# "))
    words = " ".join(text for text in above if not text.startswith("@"))
    if not words:
        raise CommentError(f"{path}: has no description; put a comment above it")
    more: dict[str, Any] = {}
    for text in above:
        if text.startswith("@"):
            more |= yaml.safe_load(text.removeprefix("@"))
    return words, more


def made() -> str:
    """Return the content of values.schema.json."""
    return json.dumps(schema_of((CHART / "values.yaml").read_text()), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(made())
