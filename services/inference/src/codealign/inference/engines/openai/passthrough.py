"""The endpoint's own metrics, passed through on this server's metrics port.

vLLM's server offers them beside its API. They are fetched at every scrape, so that one scrape target shows both sides.
Only families with vLLM's prefix are taken: the endpoint's process metrics would collide with this process's.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from codealign.inference.engines.openai.endpoint import Endpoint
from codealign.inference.metrics import ENGINE_METRICS_UP

PREFIX = "vllm:"
_shared: dict[str, EndpointMetrics] = {}
"""Collectors by base URL. The models of one endpoint share its metrics, which must appear once."""


class EndpointMetrics(Collector):
    """Metrics of an OpenAI-compatible server.

    Args:
        endpoint: The server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._users = 0

    @classmethod
    def join(cls, endpoint: Endpoint) -> EndpointMetrics | None:
        """Include an endpoint's metrics in those of this process, if it has any. Blocks."""
        found = _shared.get(endpoint.base_url)
        if found is None:
            if endpoint.metrics() is None:
                return None
            found = _shared[endpoint.base_url] = cls(endpoint)
            REGISTRY.register(found)
        found._users += 1
        return found

    def leave(self) -> None:
        """Leave them out again, after the last model of the endpoint has left."""
        self._users -= 1
        if not self._users:
            del _shared[self._endpoint.base_url]
            REGISTRY.unregister(self)
            ENGINE_METRICS_UP.remove(self._endpoint.base_url)

    def describe(self) -> Iterable[Metric]:
        """Return no names, so that registering does not fetch."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Fetch the endpoint's families."""
        found = vllm_families(self._endpoint.metrics())
        ENGINE_METRICS_UP.labels(self._endpoint.base_url).set(found is not None)
        return [*ENGINE_METRICS_UP.collect(), *(found or [])]


def vllm_families(text: str | None) -> list[Metric] | None:
    """Return vLLM's families in an exposition, or None if there is no valid one."""
    if text is None:
        return None
    try:
        families: Iterable[Metric] = text_string_to_metric_families(text)
        return [_without_times(family) for family in families if family.name.startswith(PREFIX)]
    except ValueError:
        return None


def _without_times(family: Metric) -> Metric:
    """Remove timestamps: the values are of this scrape, and one that is no time would end it."""
    family.samples = [sample._replace(timestamp=None) for sample in family.samples]
    return family
