"""The operator's process: `python -m codealign.trainer.cluster.operator`.

kopf watches FineTuneJobs, manages their finalizer and calls `Reconciler` for each of them every few seconds. The
operator watches one namespace, does not use peering, and needs no permission to read the cluster's CRDs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import kopf

from codealign.common import logs, metrics
from codealign.common.clients import Addresses, Clients, ClientTls
from codealign.common.errors import EXIT_CONFIGURATION, ConfigurationError, Unavailable
from codealign.common.settings import load
from codealign.trainer.cluster.api import KubernetesCluster
from codealign.trainer.cluster.manifests import read_template
from codealign.trainer.cluster.metrics import RECONCILE_ERRORS
from codealign.trainer.cluster.reconcile import Reconciler
from codealign.trainer.cluster.resource import FINALIZER, GROUP, PLURAL, VERSION, Object
from codealign.trainer.cluster.settings import OperatorSettings
from codealign.trainer.cluster.status import Happening

log = logs.get_logger(__name__)


def tell(resource: Object, happening: Happening) -> None:
    """Emit a Kubernetes event for a FineTuneJob."""
    kind = "Warning" if happening.warning else "Normal"
    made: Any = resource
    kopf.event(made, type=kind, reason=happening.reason, message=happening.message[:1000])


def registry(settings: OperatorSettings) -> kopf.OperatorRegistry:
    """Return kopf's handlers.

    Raises:
        ConfigurationError: The pod template, the volume or the API server cannot be used.
    """
    template = read_template(settings.pod_template)
    cluster = KubernetesCluster(settings.namespace)
    addresses = Addresses(dataset=settings.dataset_address)
    tls = ClientTls(settings.client_ca_file, settings.client_cert_file, settings.client_key_file)
    clients = Clients(addresses, tls)
    reconciler = Reconciler(cluster, settings, template, clients, tell)
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=handlers)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.persistence.finalizer = FINALIZER
        # The status belongs to the reconciler; its schema has no fields for kopf.
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
        # Only `tell` emits events.
        settings.posting.enabled = True
        settings.posting.level = 100
        # Notice dead connections and restart the watch.
        settings.watching.server_timeout, settings.watching.client_timeout = 300, 330
        await clients.__aenter__()

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await clients.__aexit__(None, None, None)

    @kopf.timer(
        GROUP, VERSION, PLURAL, interval=settings.interval_seconds, registry=handlers, id="reconcile", retries=None
    )
    async def look(name: str | None, **_: Any) -> None:
        try:
            await reconciler.reconcile(str(name))
        except Unavailable as error:  # the next poll retries
            RECONCILE_ERRORS.labels("api_server").inc()
            log.warning("api_server_unavailable", name=name, error=error.message)
        except Exception as error:
            RECONCILE_ERRORS.labels("unexpected").inc()
            log.exception("reconcile_failed", name=name, error=str(error))

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=handlers, id="finalize")
    async def finalize(body: kopf.Body, **_: Any) -> None:
        # Wait here instead of raising for a retry, which kopf would log as an error each time.
        while not await _finalized(reconciler, dict(body)):  # noqa: ASYNC110 - it changes elsewhere
            await asyncio.sleep(settings.interval_seconds)

    return handlers


async def _finalized(reconciler: Reconciler, resource: Object) -> bool:
    try:
        return await reconciler.finalize(resource)
    except Unavailable as error:
        log.warning("api_server_unavailable", name=resource["metadata"]["name"], error=error.message)
    except OSError as error:
        log.warning("volume_failed", name=resource["metadata"]["name"], error=str(error))
    return False


async def run(settings: OperatorSettings, stop: asyncio.Event | None = None) -> None:
    """Run the operator for a namespace until `stop` is set."""
    await kopf.operator(
        registry=registry(settings),
        standalone=True,
        namespaces=[settings.namespace],
        liveness_endpoint=f"http://{settings.host}:{settings.liveness_port}/healthz",
        stop_flag=stop,
    )


def main() -> None:
    """Run until stopped; exit with 2 if the operator cannot start."""
    try:
        settings = load(OperatorSettings, "codealign-operator")
        logs.configure("operator", settings.log_level, settings.log_format)
        # They log every poll and every probe.
        for quiet in ("kopf", "aiohttp.access"):
            logging.getLogger(quiet).setLevel(logging.WARNING)
        log.info("metrics", port=metrics.serve(settings.host, settings.metrics_port))
        asyncio.run(run(settings))
    except ConfigurationError as error:
        print(f"codealign-operator: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    except OSError as error:
        print(f"codealign-operator: CODEALIGN_OPERATOR_LIVENESS_PORT: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)


if __name__ == "__main__":
    main()
