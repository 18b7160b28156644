"""A heavily disturbed run on several workers produces the same data set as an undisturbed one on one pod."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.cluster.conftest import Report
from tests.cluster.kube import CommandError
from tests.cluster.release import Release

SEEDS = 40


class Disturbance(threading.Thread):
    """Deletes a pod of each component, in random order at random times, with an upgrade in the middle."""

    def __init__(self, release: Release, seed: int) -> None:
        super().__init__(daemon=True)
        self._release = release
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self.rows: list[tuple[object, ...]] = [("second", "what was done")]
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            components = sorted(
                {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in self._release.pods()}
            )
            self._random.shuffle(components)
            for at, component in enumerate(components):
                time.sleep(self._random.uniform(1, 5))
                if at == len(components) // 2:
                    self._release.helm("upgrade", changed={"log.level": "debug", "tls.generated.rotation": "2"})
                    self._note("`helm upgrade`: another log level and new certificates, so every pod is replaced")
                    time.sleep(self._random.uniform(1, 5))
                for pod in self._release.pods(component)[:1]:
                    self._release.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
                self._note(f"a pod of {component} deleted")
        except BaseException as error:
            self.error = error
            raise

    def _note(self, what: str) -> None:
        self.rows.append((round(time.monotonic() - self._began), what))


@pytest.mark.timeout(1200)
def test_a_disturbed_run_ends_with_the_same_dataset(demo: Release, other: Release, report: Report) -> None:
    with report.step(f"a run on nano in the second release, undisturbed, {SEEDS} seeds") as seen:
        undisturbed = other.version(SEEDS, 0)
        seen(undisturbed)
    disturbance = Disturbance(demo, seed=7)
    with report.step(
        "the same run in the first, on two workers, with a pod of each component deleted and an upgrade in the middle"
    ) as seen:
        demo.environment()
        disturbance.start()
        disturbed = demo.version(SEEDS, 0)
        assert not disturbance.is_alive(), "the run was over before all of it was done"
        assert disturbance.error is None
        seen(disturbed)
    report.tables["What was done to the disturbed run"] = ("Seconds since its start.", disturbance.rows)
    assert disturbed == undisturbed
    with report.step("the disturbed release, until every pod is ready again"):
        demo.wait_ready()


def test_a_row_can_be_explained_and_exported(demo: Release) -> None:
    version = demo.version(SEEDS, 0)
    status, said = demo.codealign("data", "export", version, "--output", str(demo.folder / "rows.jsonl"))
    assert status == 0, said
    assert (demo.folder / "rows.jsonl").read_text().count("\n") > 5


def test_a_rollback_comes_up_with_the_same_data(demo: Release, report: Report) -> None:
    with report.step("`helm rollback`, until every pod is ready") as seen:
        demo.helm("rollback", "1")
        demo.wait_ready()
        status, said = demo.codealign("data", "versions")
        assert status == 0, said
        seen("the version is still listed")
    demo.values = {name: value for name, value in demo.values.items() if not name.startswith(("log.", "tls."))}
    assert "v-" in said


def test_an_upgrade_with_a_wrong_value_changes_nothing(demo: Release) -> None:
    wanted = dict(demo.values)
    with pytest.raises(CommandError, match="runners"):
        demo.helm("upgrade", changed={"runners.scaling.min": "5"})
    demo.values = wanted
    demo.wait_ready(30)
