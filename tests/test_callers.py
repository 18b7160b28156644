"""The access lists, checked against the calling code, the contracts and the chart's certificates."""

from __future__ import annotations

import ast
import base64
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

import codealign.coordinator.main
import codealign.dataset.service
import codealign.inference.main
import codealign.runner.pod.main
import codealign.sandbox.main
import codealign.trainer.main
from codealign.common import access, certificates
from codealign.common.access import ALL, Callers
from codealign.common.scaling import servicer as scaling
from tests.charts.rendered import rendered

ROOT = Path(__file__).parents[1]
LISTS: dict[str, Callers] = {
    codealign.dataset.service.FULL_NAME: codealign.dataset.service.CALLERS,
    codealign.coordinator.main.SERVICE: codealign.coordinator.main.CALLERS,
    codealign.sandbox.main.SERVICE: codealign.sandbox.main.CALLERS,
    scaling.SERVICE: codealign.sandbox.main.SCALER_CALLERS,
    codealign.inference.main.SERVICE: codealign.inference.main.CALLERS,
    codealign.trainer.main.SERVICE: codealign.trainer.main.CALLERS,
    codealign.runner.pod.main.SERVICE: codealign.runner.pod.main.CALLERS,
}
_CLI = "cli/src/codealign/cli"
SOURCES: dict[str, tuple[str, ...]] = {
    "coordinator": ("services/coordinator/src",),
    "dataset": ("services/dataset/src",),
    "inference": ("services/inference/src",),
    "sandbox": ("services/sandbox/src",),
    "trainer": ("trainer/src",),
    "console": (
        "services/console/src",
        *(f"{_CLI}/{name}.py" for name in ("connection", "diffing", "family", "missing_rows")),
    ),
    "client": ("cli/src",),
}
"""Source directories and files, by the certificate that their code uses."""
TOOLS = (ROOT / "services/inference/src/codealign/inference/engines/simulated/record.py",)
"""Programs in a service's package that users run with a client's certificate, and that are not part of the service."""


def methods(service: str) -> set[str]:
    return {method.name for method in descriptor_pool.Default().FindServiceByName(service).methods}


def _files(sources: Iterable[str]) -> set[Path]:
    paths = [ROOT / each for each in sources]
    return {path for each in paths for path in (each.rglob("*.py") if each.is_dir() else [each])}


def called_in(sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return service and method of every call in the code: `clients.dataset.Append`, `stub.Attach`."""
    owners = {method: service for service in LISTS for method in methods(service)}
    assert len(owners) == sum(len(methods(service)) for service in LISTS), "two services have a method of one name"
    for path in sorted(_files(sources) - set(TOOLS)):
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or node.attr not in owners:
                continue
            # A message may have the same name as a method: `pb.Lineage`.
            if not (isinstance(node.value, ast.Name) and node.value.id in imported):
                yield owners[node.attr], node.attr


@pytest.mark.parametrize("caller", SOURCES)
def test_a_caller_may_call_what_its_code_calls_and_nothing_more(caller: str) -> None:
    called = set(called_in(SOURCES[caller]))
    for service, lists in LISTS.items():
        wanted = {method for owner, method in called if owner == service}
        allowed = tuple(lists.get(caller, ()))
        if allowed == ALL:
            assert caller == "client"
        else:
            assert set(allowed) == wanted, service


def test_there_is_something_to_compare() -> None:
    """The previous test relies on finding calls."""
    dataset, runner = codealign.dataset.service.FULL_NAME, codealign.runner.pod.main.SERVICE
    assert {(dataset, "Append"), (dataset, "AcquireLease")} <= set(called_in(SOURCES["coordinator"]))
    assert set(called_in(SOURCES["sandbox"])) == {(runner, "Attach")}
    assert len(set(called_in(SOURCES["client"]))) > 20


def test_every_list_is_right_and_every_method_is_somebodys() -> None:
    for service, lists in LISTS.items():
        access.check(service, lists)
        assert all(any(tuple(each) == ALL or name in each for each in lists.values()) for name in methods(service))


def test_people_may_call_everything_but_a_runner_and_keda_may_call_its_scaler_alone() -> None:
    runner, scaler = codealign.runner.pod.main.SERVICE, scaling.SERVICE
    of_people = {service for service, lists in LISTS.items() if tuple(lists.get("client", ())) == ALL}
    assert of_people == set(LISTS) - {runner}
    assert {service for service, lists in LISTS.items() if "keda" in lists} == {scaler}
    assert codealign.inference.main.SCALER_CALLERS == codealign.sandbox.main.SCALER_CALLERS
    assert LISTS[runner].keys() == {"sandbox"}
    of_dataset = LISTS[codealign.dataset.service.FULL_NAME]
    assert of_dataset["operator"] == of_dataset["trainer"]


def asked_of_cert_manager() -> set[str]:
    asked = (each["spec"] for each in rendered("cert-manager").of("Certificate"))
    return {each["commonName"] for each in asked if not each.get("isCA")}


def generated() -> set[str]:
    secrets = [each for each in rendered("gpu-single").of("Secret") if each["metadata"]["name"].endswith("-tls")]
    read = [certificates.read(base64.b64decode(each["data"]["tls.crt"])) for each in secrets]
    return {name for (certificate,) in read for name in certificate.common_names}


@pytest.mark.helm
@pytest.mark.parametrize("names", [asked_of_cert_manager, generated])
def test_the_charts_certificates_are_those_of_the_callers_and_the_runners(names: Callable[[], set[str]]) -> None:
    named = names()
    assert named - {"runners"} <= access.CALLER_NAMES
    assert access.CALLER_NAMES - named <= {"operator", "console"}
