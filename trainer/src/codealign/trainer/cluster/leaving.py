"""Before a release is taken away: `python -m codealign.trainer.cluster.leaving` deletes its FineTuneJobs.

The operator has to let go of each of them, so they go while it is still there; afterwards nobody could.
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


async def leave(cluster: Cluster, seconds: float = _SECONDS) -> list[str]:
    """Delete every FineTuneJob, and wait until they are gone.

    Args:
        cluster: The namespace.
        seconds: To wait at most.

    Returns:
        The names of those that are still there.

    Raises:
        ApiRefusal, Unavailable: The API server says no, or does not answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = await cluster.list(PLURAL)
        except ApiRefusal as error:
            if error.status == 404:  # the kind itself is gone
                return []
            raise
        for job in left:
            if not job["metadata"].get("deletionTimestamp"):
                await cluster.delete(PLURAL, job["metadata"]["name"], uid=job["metadata"]["uid"])
        if not left or time.monotonic() > deadline:
            return [job["metadata"]["name"] for job in left]
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> None:
    """Ends with 1 where some are left."""
    try:
        settings = load(OperatorSettings)
        left = asyncio.run(leave(KubernetesCluster(settings.namespace)))
    except (CodeAlignError, ConfigurationError) as error:
        sys.exit(f"FineTuneJobs could not be deleted: {error}")
    if left:
        sys.exit(
            f"FineTuneJobs {', '.join(left)} are still there: the operator does not let go of them (see its log). To "
            "uninstall all the same: helm uninstall --no-hooks, then take their finalizers off"
        )


if __name__ == "__main__":
    main()
