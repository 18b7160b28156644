"""State that an upgrade preserves. Without a cluster, a value tells the chart what it would find in one."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendered import CHART, FULL, NAMESPACE, RELEASE, helm, parsed

Secrets = dict[str, dict[str, str]]
Upgrade = Callable[..., Secrets]
_LOOKUP = re.compile(r'lookup "v1" "Secret" \$?\.Release\.Namespace (\$\w+)')


def _told(documents: list[dict[str, Any]]) -> Secrets:
    """Return each Secret's content as a cluster would store it."""
    found = {}
    for each in documents:
        plain = {key: base64.b64encode(value.encode()).decode() for key, value in each.get("stringData", {}).items()}
        found[each["metadata"]["name"]] = {**each.get("data", {}), **plain}
    return found


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    """Render the chart as an upgrade of its previous rendering, or first as an installation."""
    chart = tmp_path / "codealign"
    shutil.copytree(CHART, chart)
    (chart / "values.schema.json").unlink()
    replaced = 0
    for path in (chart / "templates").glob("*.yaml"):
        text, count = _LOOKUP.subn(r"(default (dict) (index (default (dict) $.Values.there) \1))", path.read_text())
        path.write_text(text)
        replaced += count
    assert replaced == 3
    values = tmp_path / "there.yaml"
    values.write_text("{}")

    def rendered(*arguments: str) -> Secrets:
        command = ["template", RELEASE, str(chart), f"--namespace={NAMESPACE}", "--api-versions=keda.sh/v1alpha1"]
        done = helm(*command, f"--values={values}", *arguments)
        assert done.returncode == 0, done.stderr
        secrets = parsed(done.stdout).of("Secret")
        content = _told(secrets)
        there = {each["metadata"]["name"]: {**each, "data": content[each["metadata"]["name"]]} for each in secrets}
        values.write_text(yaml.safe_dump({"there": there}))
        return content

    return rendered


def test_certificates_and_the_password_stay(upgrade: Upgrade) -> None:
    assert upgrade() == upgrade()


def test_a_part_that_is_new_gets_a_certificate_of_the_same_authority(upgrade: Upgrade) -> None:
    before, after = upgrade(), upgrade("--set=runners.scaling.mode=keda")
    assert after.keys() - before.keys() == {f"{FULL}-keda-tls"}
    assert before.items() <= after.items()
    assert after[f"{FULL}-keda-tls"]["ca.crt"] == before[f"{FULL}-authority"]["tls.crt"]


def test_a_rotation_renews_all_certificates_and_not_the_authority(upgrade: Upgrade) -> None:
    before, after = upgrade(), upgrade("--set-string=tls.generated.rotation=2")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.endswith("-tls")}
    assert {after[name]["ca.crt"] for name in changed} == {before[f"{FULL}-authority"]["tls.crt"]}
    assert upgrade("--set-string=tls.generated.rotation=2") == after


def test_a_rotation_restarts_every_server() -> None:
    text = helm("template", RELEASE, ".", "--set-string=tls.generated.rotation=2").stdout
    for pod in parsed(text).pods():
        if pod.owner["kind"] == "Deployment":
            annotations = pod.owner["spec"]["template"]["metadata"]["annotations"]
            assert annotations["codealign/tls-rotation"] == "2"
