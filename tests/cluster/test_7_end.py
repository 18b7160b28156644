"""Uninstalling leaves exactly what the values say."""

from __future__ import annotations

from tests.cluster.conftest import Report
from tests.cluster.kube import kubectl, until
from tests.cluster.release import Release

KINDS = (
    "all,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,"
    "persistentvolumeclaims,finetunejobs"
)


def _left(release: Release) -> list[str]:
    listed = release.kubectl("get", KINDS, "--output=name").split()
    own = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    return [name for name in listed if name not in own]


def test_an_uninstallation_leaves_what_the_values_keep(demo: Release, other: Release, report: Report) -> None:
    with report.step("`helm uninstall` of both, until nothing is left") as seen:
        other.helm("uninstall")
        demo.helm("upgrade", changed={"artifacts.keep": "true", "runners.scaling.mode": "fixed"})
        demo.helm("uninstall")
        until("the second is gone", lambda: not _left(other), 180)
        until("the first is gone", lambda: _left(demo) == [f"persistentvolumeclaim/{demo.full}-artifacts"], 180)
        seen("nothing, but the claim that `artifacts.keep` is for")
    assert not [each for each in demo.get("finetunejobs") if "deletionTimestamp" not in each["metadata"]]


def test_the_cluster_keeps_nothing_of_a_release() -> None:
    for kind in ("clusterroles", "clusterrolebindings", "mutatingwebhookconfigurations"):
        assert "codealign" not in kubectl("get", kind, "--output=name")
