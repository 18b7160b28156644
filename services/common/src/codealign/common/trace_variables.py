"""OpenTelemetry's environment variables: where traces go, and values that the SDK would silently replace."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from codealign.common.errors import ConfigurationError
from codealign.common.text import unknown

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER = "OTEL_TRACES_EXPORTER"
DISABLED = "OTEL_SDK_DISABLED"
SAMPLER, SAMPLER_ARG = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
SAMPLERS = tuple(
    f"{based}{how}" for based in ("", "parentbased_") for how in ("always_on", "always_off", "traceidratio")
)
FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
NUMBERS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
WHOLE_NUMBERS = tuple(
    f"OTEL_BSP_{name}" for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
)


def exporting_to() -> tuple[str, str]:
    """Return the variable that names the collector's endpoint and the endpoint, or two empty texts without export.

    Raises:
        ConfigurationError: A variable has an unusable value.
    """
    variable, endpoint = _first(ENDPOINTS)
    exporter = os.environ.get(EXPORTER) or "otlp"
    if not endpoint or exporter == "none" or os.environ.get(DISABLED, "").lower() == "true":
        return "", ""
    if exporter != "otlp":
        raise ConfigurationError(f"{EXPORTER}={exporter}: traces are exported over OTLP only; use otlp or none")
    _check_endpoint(variable, endpoint)
    _check_values()
    return variable, endpoint


def _first(names: Sequence[str]) -> tuple[str, str]:
    """Return the first of these variables that is set, with its value, or ("", "")."""
    return next(((name, value) for name in names if (value := os.environ.get(name, ""))), ("", ""))


def _check_endpoint(variable: str, endpoint: str) -> None:
    """Refuse what the exporter would accept and then never reach."""
    chosen, protocol = _first(PROTOCOLS)
    if protocol not in ("", "grpc"):
        raise ConfigurationError(
            f"{chosen}={protocol}: traces are exported over OTLP/gRPC only; leave it unset, and give the collector's "
            f"gRPC port (usually 4317) in {variable}"
        )
    url = urlsplit(endpoint)
    try:
        complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port is not None
    except ValueError:  # the port is no number
        complete = False
    if not complete or "@" in url.netloc or url.path not in ("", "/") or endpoint != endpoint.strip():
        raise ConfigurationError(
            f"{variable}={endpoint}: must be http:// or https:// (with TLS), a host and the collector's gRPC port, "
            "without a path, such as http://localhost:4317"
        )


def _check_values() -> None:
    """Refuse values in whose place the SDK would use others, such as a ratio of 1."""
    sampler = os.environ.get(SAMPLER, "").lower()
    if sampler and sampler not in SAMPLERS:
        raise ConfigurationError(f"{SAMPLER}: {unknown('sampler', sampler, SAMPLERS)}")
    ratio = os.environ.get(SAMPLER_ARG, "")
    if ratio and sampler.endswith("ratio") and not 0 <= _number(ratio) <= 1:
        raise ConfigurationError(f"{SAMPLER_ARG}={ratio}: must be a number from 0 to 1")
    for name in (*NUMBERS, *WHOLE_NUMBERS):
        value = os.environ.get(name)
        whole = name in WHOLE_NUMBERS
        if value is not None and not (0 < _number(value) < math.inf and (value.isdecimal() or not whole)):
            kind = "whole number" if whole else "number"
            raise ConfigurationError(f"{name}={value}: must be a {kind} greater than 0, or unset")
    for name in (f"OTEL_EXPORTER_OTLP_{signal}{file}" for signal in ("TRACES_", "") for file in FILES):
        if path := os.environ.get(name):
            _check_pem(name, path)
    for name in ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        pairs = [pair for pair in os.environ.get(name, "").split(",") if pair.strip()]
        if not all("=" in pair and pair.isascii() for pair in pairs):  # the values are often secret
            raise ConfigurationError(f"{name}: must be name=value pairs, separated by commas, in URL encoding")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_pem(variable: str, path: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{variable}={path}: cannot be read ({error.strerror})") from None
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"{variable}={path}: is not a PEM file")
