"""Hook before a release is uninstalled: `python -m codealign.trainer.cluster.uninstall` deletes its FineTuneJobs.

Only the operator can remove their finalizers, so they must be deleted while it still runs.
"""

from __future__ import annotations

import asyncio
import sys
import time

from codealign.common.errors import CodeAlignError, ConfigurationError
from codealign.common.settings import load
from codealign.trainer.cluster.api import ApiRefusal, Cluster, KubernetesCluster
from codealign.trainer.cluster.resource import PLURAL
from codealign.trainer.cluster.settings import OperatorSettings

_SECONDS = 150.0
_LOOK_SECONDS = 1.0


async def delete_all(cluster: Cluster, seconds: float = _SECONDS) -> list[str]:
    """Delete every FineTuneJob and wait until all are gone.

    Args:
        cluster: Client of the release's namespace.
        seconds: Timeout.

    Returns:
        The names of the FineTuneJobs that remain.

    Raises:
        ApiRefusal, Unavailable: The API server rejects a request or does not respond.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = await cluster.list(PLURAL)
        except ApiRefusal as error:
            if error.status == 404:  # the CRD itself is gone
                return []
            raise
        for job in left:
            if not job["metadata"].get("deletionTimestamp"):
                await cluster.delete(PLURAL, job["metadata"]["name"], uid=job["metadata"]["uid"])
        if not left or time.monotonic() > deadline:
            return [job["metadata"]["name"] for job in left]
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> None:
    """Delete the release's FineTuneJobs; exit with 1 if some remain."""
    try:
        settings = load(OperatorSettings)
        left = asyncio.run(delete_all(KubernetesCluster(settings.namespace)))
    except (CodeAlignError, ConfigurationError) as error:
        sys.exit(f"FineTuneJobs could not be deleted: {error}")
    if left:
        sys.exit(
            f"FineTuneJobs {', '.join(left)} still exist: the operator has not removed their finalizers (see its log). "
            "To uninstall anyway: helm uninstall --no-hooks, then remove the finalizers by hand"
        )


if __name__ == "__main__":
    main()
