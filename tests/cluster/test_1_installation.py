"""Installation: refused and invalid values, and two releases that become ready."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import WORKERS, Report
from tests.cluster.kube import CommandError, run, until
from tests.cluster.release import CHART, Release


def test_the_chart_is_sound() -> None:
    said = run("helm", "lint", "--strict", str(CHART), f"--values={CHART}/values-trial.yaml")
    assert "0 chart(s) failed" in said


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("runners.scaling.mod", "keda", "runners.scaling': additional properties 'mod' not allowed"),
        ("inference.engine", "vlm", "inference.engine"),
        ("inference.startSeconds", "soon", "inference.startSeconds"),
        ("runners.runtimeClassName", "nowhere", 'this cluster has no RuntimeClass "nowhere": install gVisor'),
        ("tls.mode", "certManager", "this cluster has no cert-manager"),
        ("postgresql.enabled", "false", "set externalDatabase.existingSecret"),
    ],
)
def test_a_wrong_value_is_refused_by_name(demo: Release, path: str, value: str, said: str) -> None:
    wanted = dict(demo.values)
    with pytest.raises(CommandError) as refused:
        demo.helm("install", changed={path: value})
    demo.values = wanted
    assert said in str(refused.value).replace("/", ".").replace("..", ".").replace("'.", "'")


def test_the_trial_comes_up(demo: Release, report: Report) -> None:
    with report.step("`helm install` with the trial's values and two inference workers, until all is ready") as seen:
        demo.helm("install")
        demo.wait_ready()
        seen(f"{len(demo.pods())} pods under PodSecurity `restricted`")


def test_helm_test_proves_the_isolation(demo: Release, report: Report) -> None:
    with report.step("`helm test`") as seen:
        said = demo.helm("test", "--logs")
        lines = [line for line in said.splitlines() if line.startswith(("ok ", "FAIL"))]
        seen(f"{len(lines)} checks")
    assert len(lines) > 10
    assert not [line for line in lines if line.startswith("FAIL")]
    assert "isolation checks passed" in said


def _migration(release: Release) -> str:
    """Return the dataset pod's messages about the schema migration."""
    try:
        return release.kubectl("logs", release.pods("dataset")[0]["metadata"]["name"], "--container=migrate")
    except CommandError:  # not started yet
        return ""


def test_a_second_release_that_cannot_work_says_why(other: Release, report: Report) -> None:
    wrong = {
        "postgresql.enabled": "false",
        "externalDatabase.url": "postgresql://u:p@nowhere.invalid:5432/x",
        "inference.model": "/models/nowhere",
    }
    with report.step("a second release with a wrong database and a wrong model reports both") as seen:
        other.helm("install", changed=wrong)
        until("the model's error", lambda: "/models/nowhere" in other.messages("inference"), 120)
        until("the database's error", lambda: "nowhere.invalid" in _migration(other), 180)
        seen(other.messages("inference").strip().splitlines()[-1][:200])


def test_the_second_release_comes_up_beside_the_first(demo: Release, other: Release, report: Report) -> None:
    with report.step("`helm upgrade` of the second with correct values, until both are ready") as seen:
        shared = demo.values.keys() - WORKERS
        other.values = {name: value for name, value in other.values.items() if name in shared}
        other.helm("upgrade", "--reset-values")
        other.wait_ready()
        demo.wait_ready()
        seen(f"{len(other.pods())} pods")
