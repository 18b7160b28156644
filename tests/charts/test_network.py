"""Allowed connections between components, as defined by NetworkPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.charts.rendered import CASES, WORKERS, Rendered, parsed, rendered, selects, template

RENDERED = pytest.mark.parametrize("case", CASES)
COMPONENT = "app.kubernetes.io/component"


def _of(chart: Rendered, labels: dict[str, str]) -> list[dict[str, Any]]:
    policies = (policy["spec"] for policy in chart.of("NetworkPolicy"))
    return [policy for policy in policies if selects(policy["podSelector"]["matchLabels"], labels)]


def _peers(chart: Rendered, component: str, direction: str) -> set[tuple[str, object]]:
    """Return the components that may connect to a component, or that it may connect to, with the port."""
    end = "from" if direction == "ingress" else "to"
    found = set()
    for policy in _of(chart, dict(chart.pod(component).labels)):
        for rule in policy.get(direction, []):
            for peer in rule.get(end, []):
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                found |= {(labels[COMPONENT], port["port"]) for port in rule["ports"] if COMPONENT in labels}
    return found


@RENDERED
def test_every_pod_is_closed_in_both_directions(case: str) -> None:
    chart = rendered(case)
    for pod in chart.pods():
        closed = [policy for policy in _of(chart, dict(pod.labels)) if not policy.keys() & {"ingress", "egress"}]
        assert any(sorted(policy["policyTypes"]) == ["Egress", "Ingress"] for policy in closed), pod.name


@RENDERED
def test_a_way_is_open_at_both_of_its_ends(case: str) -> None:
    chart = rendered(case)
    components = [pod.component for pod in chart.pods() if not pod.component.startswith("test")]
    leaving = {(one, *to) for one in components for to in _peers(chart, one, "egress")}
    arriving = {(whose[0], one, whose[1]) for one in components for whose in _peers(chart, one, "ingress")}
    assert leaving == {way for way in arriving if not way[0].startswith("test")}
    wanted = {
        *(("coordinator", called, "grpc") for called in ("dataset", "inference", "sandbox", "trainer")),
        ("trainer", "dataset", "grpc"),
        ("operator", "dataset", "grpc"),
        ("training-worker", "training-worker", 1),  # up to 65535: gloo and NCCL choose their ports
        ("sandbox", "runners", "grpc"),
    }
    if WORKERS in components:
        wanted.add(("inference", WORKERS, "grpc"))
    if "console" in components:
        wanted |= {("console", called, "grpc") for called in ("coordinator", "dataset", "trainer")}
    if "postgresql" in components:
        wanted.add(("dataset", "postgresql", "postgresql"))
    assert leaving == wanted


@RENDERED
def test_nothing_leaves_a_runner(case: str) -> None:
    chart = rendered(case)
    for component in ("runners", "test-egress"):
        policies = _of(chart, dict(chart.pod(component).labels))
        assert policies
        assert not any(policy.get("egress") for policy in policies)


@RENDERED
def test_no_rule_is_open_to_everybody_but_the_database_elsewhere_and_the_api_server(case: str) -> None:
    for policy in rendered(case).of("NetworkPolicy"):
        spec = policy["spec"]
        assert all(rule.get("from") and rule.get("ports") for rule in spec.get("ingress", []))
        free = [rule for rule in spec.get("egress", []) if not rule.get("to")]
        name = policy["metadata"]["name"]
        elsewhere = case in ("elsewhere", "gpu-multi", "workers", "workers-keda") and name.endswith("-dataset")
        asks = name.endswith(("-operator", "-trainer", "-uninstall"))
        ports = [5432] if elsewhere else [443, 6443] if asks else []
        assert free == ([{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}] if ports else [])


def test_the_api_server_is_where_the_values_say() -> None:
    cidr = '[{"ipBlock":{"cidr":"192.0.2.7/32"}}]'
    done = template("--set=networkPolicy.apiServer.ports={6443}", f"--set-json=networkPolicy.apiServer.peers={cidr}")
    rule = {"ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}
    policies = parsed(done.stdout).of("NetworkPolicy")
    asking = {each["metadata"]["name"] for each in policies if rule in each["spec"].get("egress", [])}
    assert asking == {f"run-codealign-{name}" for name in ("operator", "trainer", "uninstall")}


def test_keda_has_a_way_in_where_it_is_used() -> None:
    def comers(case: str, component: str = "sandbox") -> list[dict[str, Any]]:
        chart = rendered(case)
        policies = _of(chart, dict(chart.pod(component).labels))
        rules = [rule for policy in policies for rule in policy.get("ingress", [])]
        return [peer for rule in rules if rule["ports"][0]["port"] == "grpc" for peer in rule["from"]]

    keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    assert keda in comers("gpu-single")
    assert keda not in comers("trial")
    assert keda in comers("workers-keda", "inference")
    assert keda not in comers("workers", "inference")
    assert keda not in comers("workers-keda", WORKERS)


@pytest.mark.parametrize("name", ["clients", "metrics", "keda", "dns", "internet", "storage", "database"])
def test_an_empty_list_of_peers_opens_nothing(name: str) -> None:
    done = template("--set=runners.scaling.mode=keda", f"--set-json=networkPolicy.{name}=[]")
    assert done.returncode == 0, done.stderr


def test_callers_from_outside_are_those_of_the_values() -> None:
    done = template('--set-json=networkPolicy.clients=[{"podSelector":{"matchLabels":{"app":"cli"}}}]')
    assert done.stdout.count("app: cli") == 5


def test_policies_can_be_left_out() -> None:
    assert "NetworkPolicy" not in template("--set=networkPolicy.enabled=false").stdout


def test_only_workers_fetch_models_and_only_their_gateway_reaches_them() -> None:
    chart = rendered("workers-keda")
    internet = {"ports": [{"port": 443, "protocol": "TCP"}]}.items()

    def rules(component: str, direction: str) -> list[dict[str, Any]]:
        return [rule for each in _of(chart, dict(chart.pod(component).labels)) for rule in each.get(direction, [])]

    assert any(internet <= rule.items() for rule in rules(WORKERS, "egress"))
    assert not any(internet <= rule.items() for rule in rules("inference", "egress"))
    people = '[{"podSelector":{"matchLabels":{"app":"x"}}}]'
    listed = template(*CASES["workers"], f"--set-json=networkPolicy.clients={people}")
    peers = [
        peer
        for policy in _of(parsed(listed.stdout), dict(chart.pod(WORKERS).labels))
        for rule in policy.get("ingress", [])
        if rule["ports"][0]["port"] == "grpc"
        for peer in rule["from"]
    ]
    assert [peer["podSelector"]["matchLabels"][COMPONENT] for peer in peers] == ["inference"]
