"""Prometheus metrics of every server: gRPC calls, its certificate, and the disks that it writes to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app, start_http_server

from codealign.common.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

HANDLED = Histogram(
    "codealign_grpc_handled_seconds", "Duration of finished calls", ["method", "code"], buckets=_SECONDS
)
IN_FLIGHT = Gauge("codealign_grpc_in_flight", "Calls in progress", ["method"])
STARTED = Counter("codealign_grpc_started_total", "Calls started", ["method"])
CERTIFICATE_EXPIRY = Gauge(
    "codealign_tls_certificate_expiry_timestamp_seconds",
    "Expiry of the certificate that the server was started with, in seconds since 1970; absent without TLS",
    ["common_name"],
)
DISK_SIZE = Gauge("codealign_disk_size_bytes", "Size of the file system that holds a volume", ["volume"])
DISK_FREE = Gauge("codealign_disk_free_bytes", "Space left for the server on that file system", ["volume"])


def serve(host: str, port: int) -> int:
    """Serve the metrics of this process over plain HTTP, in a thread of their own, and return the port.

    Args:
        host: Address to listen on.
        port: Port to listen on. 0: any free port.

    Raises:
        ConfigurationError: The port is in use or may not be used.
    """
    try:
        server, _ = start_http_server(port, host)
    except OSError as error:
        raise ConfigurationError(
            f"metrics_port={port}: cannot listen on {host} ({error.strerror}); choose another metrics_port (0: any "
            "free port)"
        ) from None
    server.set_app(_as_text(make_wsgi_app()))
    return int(server.server_port)


def _as_text(app: WSGIApplication) -> WSGIApplication:
    """Answer in the text format, whatever the scraper prefers.

    Prometheus 2 prefers OpenMetrics, in which the client library writes the colon of vLLM's names as an underscore.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return app({**environ, "HTTP_ACCEPT": "text/plain;version=0.0.4"}, start_response)

    return answer


def watch_disk(volume: str, path: Path) -> None:
    """Report the size and free space of a directory's file system at every scrape.

    Args:
        volume: What the server keeps there, such as "data".
        path: The directory. Until it exists, its nearest existing parent counts.
    """

    def usage(field: str) -> Callable[[], float]:
        def read() -> float:
            try:
                there = next(each for each in (path, *path.absolute().parents) if each.exists())
                return float(getattr(shutil.disk_usage(there), field))
            except OSError:
                return float("nan")  # a failed disk must not hide the other metrics

        return read

    DISK_SIZE.labels(volume).set_function(usage("total"))
    DISK_FREE.labels(volume).set_function(usage("free"))
