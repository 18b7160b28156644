"""FineTuneJob: its schema compared with the contract, its manifests, and the pod template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from codealign.api.training.v1 import training_pb2 as api
from codealign.common import training_settings
from codealign.common.errors import ConfigurationError, InvalidArgument
from codealign.trainer.cluster import manifests
from codealign.trainer.cluster.resource import (
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    Object,
    ended,
    resource_of,
    training_name,
    training_of,
    training_spec,
)
from codealign.trainer.cluster.worker import CANNOT_GO_ON, FIRST_POD, PODS
from codealign.trainer.specification import completed, stage_config
from trainer.tests.tiny import make_job

CRD: Object = yaml.safe_load((Path(__file__).parents[2] / "charts/codealign/crds/finetunejobs.yaml").read_text())
SCHEMA: Object = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
SPEC: Object = SCHEMA["spec"]["properties"]
OWN = {"workersPerPod", "suspend", "cancel", "attempt", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}
EVERYTHING = api.TrainingSpec(
    name="a name",
    model="org/model",
    model_revision="0" * 64,
    dataset="v-0123456789abcdef",
    learning_rate=3e-7,
    warmup_ratio=0.0,
    schedule="cosine",
    optimizer="adamw",
    batch_size=32,
    epochs=0.5,
    max_steps=2**40,
    max_length=77,
    dtype="bfloat16",
    lora=api.Lora(rank=4, alpha=0.5, target_modules=["q_proj"], dropout=0.25),
    gradient_checkpointing=True,
    workers=4,
    checkpoint_steps=9,
    seed=-(2**50),
    sharding="ddp",
    rows=2**40,
)


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def resource(**spec: Any) -> Object:
    metadata = {"name": "one", "uid": "u-1", "generation": 3, "creationTimestamp": "2026-01-02T03:04:05Z"}
    given = {"model": "m", "dataset": "d", "batchSize": 64, "workers": 4, **spec}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": given}


def with_defaults() -> Object:
    """Return a FineTuneJob with the API server's defaults."""
    found = {name: field["default"] for name, field in SPEC.items() if "default" in field}
    return resource(**{**found, "model": "m", "dataset": "d"})


def test_the_resource_is_the_one_that_the_code_asks_for() -> None:
    names = CRD["spec"]["names"]
    assert (CRD["spec"]["group"], CRD["spec"]["versions"][0]["name"]) == (GROUP, VERSION)
    assert (names["kind"], names["plural"], CRD["metadata"]["name"]) == (KIND, PLURAL, f"{PLURAL}.{GROUP}")


def test_the_schema_has_the_contracts_fields_and_a_few_of_its_own() -> None:
    fields = {field.name for field in api.TrainingSpec.DESCRIPTOR.fields}
    assert {snake(name) for name in SPEC.keys() - OWN} == fields
    assert SPEC.keys() >= OWN
    assert {snake(name) for name in SPEC["lora"]["properties"]} == {field.name for field in api.Lora.DESCRIPTOR.fields}


def test_the_schemas_defaults_are_the_services() -> None:
    assert training_spec(with_defaults()) == _without_dtype(completed(api.TrainingSpec(model="m", dataset="d"), "cpu"))
    lora = {name: field["default"] for name, field in SPEC["lora"]["properties"].items() if "default" in field}
    given = completed(api.TrainingSpec(model="m", dataset="d", lora=api.Lora()), "cpu")
    assert completed(training_spec(resource(lora=lora)), "cpu").lora == given.lora


def _without_dtype(spec: api.TrainingSpec) -> api.TrainingSpec:
    spec.ClearField("dtype")  # determined by the pods' device
    return spec


@pytest.mark.parametrize("name", sorted(SPEC.keys() - OWN - {"name", "model", "modelRevision", "dataset", "seed"}))
def test_what_the_schema_takes_the_service_takes_and_nothing_beyond(name: str) -> None:
    def taken(**changes: Any) -> bool:
        try:
            completed(training_spec(resource(**{"workers": 1, **changes})), "cpu")
        except (InvalidArgument, ValueError):
            return False
        return True

    field = SPEC[name]
    if "enum" in field:
        assert all(taken(**{name: value}) for value in field["enum"])
        assert not taken(**{name: "another"})
        return
    if field["type"] in ("object", "boolean"):
        assert taken(**{name: {} if field["type"] == "object" else True})
        return
    step = 1 if field["type"] == "integer" else 1e-9
    low = field["minimum"] + (step if field.get("exclusiveMinimum") else 0)
    changes = {"batchSize": field.get("maximum", 64)} if name == "workers" else {}
    assert taken(**{name: low, **changes})
    if "maximum" in field and name != "checkpointSteps":
        assert taken(**{name: field["maximum"], **({"batchSize": 64} if name == "workers" else {})})
        assert not taken(**{name: field["maximum"] * 1.1 if step < 1 else field["maximum"] + 1})
    assert not taken(**{name: low - 2 * abs(low) - 1})


def test_the_schemas_choices_are_all_that_the_service_has() -> None:
    choices = {name: field["enum"] for name, field in SPEC.items() if "enum" in field}
    assert choices == {
        "schedule": list(training_settings.SCHEDULES),
        "optimizer": list(training_settings.OPTIMIZERS),
        "dtype": list(training_settings.DTYPES),
        "sharding": list(training_settings.SHARDINGS),
    }


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("rank", (1, training_settings.MAX_RANK), (-1, training_settings.MAX_RANK + 1)),
        ("alpha", (1e-9, 1e6), (-1e-9, 1.1e6)),
        ("dropout", (0.0, 1 - 1e-9), (-1e-9, 1.0)),
    ],
)
def test_an_adapters_ranges_in_the_schema_are_the_services(
    name: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    field = SPEC["lora"]["properties"][name]

    low, high = float(field["minimum"]), float(field["maximum"])

    def in_schema(value: float) -> bool:
        above = value > low if field.get("exclusiveMinimum") else value >= low
        return above and (value < high if field.get("exclusiveMaximum") else value <= high)

    def in_service(value: float) -> bool:
        try:
            completed(training_spec(resource(lora={name: value})), "cpu")
        except InvalidArgument:
            return False
        return True

    for value in (*inside, *outside):
        assert in_schema(value) == in_service(value) == (value in inside), value


def test_every_field_of_the_spec_has_a_description() -> None:
    fields = {**SPEC, **SPEC["lora"]["properties"]}
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_everything_that_determines_the_result_is_fixed() -> None:
    first, second = EVERYTHING, api.TrainingSpec()
    determines = set()
    for field in api.TrainingSpec.DESCRIPTOR.fields:
        second.CopyFrom(first)
        value = getattr(first, field.name)
        changed: Any = {"schedule": "linear", "optimizer": "adafactor", "dtype": "float32", "sharding": "fsdp"}
        if field.name == "lora":
            second.lora.rank += 1
        elif isinstance(value, bool):
            setattr(second, field.name, not value)
        elif isinstance(value, str):
            setattr(second, field.name, changed.get(field.name, "another"))
        elif field.name == "warmup_ratio":
            second.warmup_ratio = 0.5
        else:
            setattr(second, field.name, value * 2 if field.name == "batch_size" else value + 1)
        if field.name == "workers":
            second.workers = 8
        ids = [
            stage_config(completed(spec, "cpu"), spec.model + spec.model_revision, spec.dataset).id
            for spec in (first, second)
        ]
        if ids[0] != ids[1]:
            determines.add(field.name)
    fixed = {snake(name) for name, field in SPEC.items() if "self == oldSelf" in str(field)}
    assert determines | {"workers_per_pod"} == fixed
    assert fixed.isdisjoint({"name", "checkpoint_steps", "suspend", "cancel", "ttl_seconds_after_finished"})
    rules = SCHEMA["spec"]["x-kubernetes-validations"]
    optional = {name for name, field in SPEC.items() if "self == oldSelf" in str(field) and "default" not in field}
    for name in optional - {"model", "dataset"}:  # it cannot be added or removed either
        assert any(rule["rule"] == f"has(self.{name}) == has(oldSelf.{name})" for rule in rules), name
    for rule in rules:
        assert rule["message"].startswith("spec.")


def test_a_specification_comes_back_from_the_resource_as_it_was() -> None:
    made = resource_of(training_name("abc"), EVERYTHING)
    assert training_spec(made) == EVERYTHING
    assert made["spec"]["maxSteps"] == 2**40
    assert made["spec"]["seed"] == -(2**50)
    small = completed(api.TrainingSpec(model="m", dataset="d"), "cpu")
    assert training_spec(resource_of("x", small)) == small
    assert made["spec"].keys() <= SPEC.keys()
    with pytest.raises(ValueError, match="learningRates"):
        training_spec(resource(learningRates=1))


def test_a_training_is_what_the_status_says() -> None:
    bare = training_of(resource(seed=5))
    assert (bare.id, bare.state) == ("one", api.TRAINING_STATE_PENDING)
    assert "check that it is running" in bare.message
    assert bare.spec.seed == 5
    assert bare.created_at.ToJsonString() == "2026-01-02T03:04:05Z"
    status = {
        "trainingId": "abc",
        "state": "Running",
        "message": "step 3 of 9",
        "step": 3,
        "totalSteps": 9,
        "loss": 1.25,
        "learningRate": 1e-5,
        "tokensPerSecond": 7.5,
        "secondsLeft": 2.0,
        "checkpointStep": 2,
        "rows": 22,
        "notes": ["a note"],
    }
    whole = training_of({**resource(), "status": status})
    assert (whole.id, whole.state, whole.step, whole.total_steps) == ("abc", api.TRAINING_STATE_RUNNING, 3, 9)
    assert (whole.loss, whole.tokens_per_second, whole.seconds_left, whole.rows) == (1.25, 7.5, 2.0, 22)
    assert (whole.checkpoint_step, list(whole.notes)) == (2, ["a note"])
    for state, expected in (
        ("Suspended", api.TRAINING_STATE_PENDING),
        ("Succeeded", api.TRAINING_STATE_SUCCEEDED),
        ("Failed", api.TRAINING_STATE_FAILED),
        ("Cancelled", api.TRAINING_STATE_CANCELLED),
    ):
        assert training_of({**resource(), "status": {"state": state}}).state == expected
    assert training_of({**resource(), "status": {"state": "Suspended", "message": "x"}}).message == "suspended: x"


def test_it_has_ended_when_nothing_else_is_wanted() -> None:
    def has(state: str, attempt: int = 1, **spec: Any) -> bool:
        return ended({**resource(**spec), "status": {"state": state, "attempt": attempt}})

    assert has("Succeeded")
    assert has("Failed")
    assert has("Cancelled", cancel=True)
    assert not has("Cancelled", cancel=False)
    assert not has("Failed", attempt=2)
    assert not has("Running")
    assert not ended(resource())


TEMPLATE: Object = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {
        "containers": [{"name": "main", "image": "i:1", "env": [{"name": "A", "value": "b"}]}],
        "tolerations": [{"operator": "Exists"}],
    },
}


def test_the_manifests_are_those_that_kubernetes_knows(tmp_path: Path) -> None:
    training = make_job(tmp_path, tmp_path, tmp_path / "out", workers=4)
    owner = resource(activeDeadlineSeconds=9)
    owner["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "q", "mine": "1"}
    job = manifests.job(owner, training, TEMPLATE, pods=2, max_restarts=3)
    service = manifests.service(owner, training.training_id)
    for made in (job, service):
        kubernetes_validate.validate(made, "1.34", strict=True)
        (reference,) = made["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"], reference["blockOwnerDeletion"]) == ("u-1", True, True)
    spec, pod = job["spec"], job["spec"]["template"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["suspend"]) == (6, 9, True)
    first, second = spec["podFailurePolicy"]["rules"]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [CANNOT_GO_ON])
    assert first["onExitCodes"]["containerName"] == "main"
    assert second == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert pod["spec"]["restartPolicy"] == "Never"  # required for a podFailurePolicy
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["clusterIP"] == "None"
    name = job["metadata"]["name"]
    assert pod["spec"]["subdomain"] == service["metadata"]["name"] == name
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert len(f"{name}-63") <= 63
    container = pod["spec"]["containers"][0]
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given == {"A": "b", PODS: "2", FIRST_POD: f"{name}-0.{name}"}
    assert container["args"] == [str(training.output / "job.json")]
    assert pod["spec"]["tolerations"] == TEMPLATE["spec"]["tolerations"]
    assert pod["metadata"]["labels"]["app"] == "x"
    assert pod["metadata"]["labels"]["codealign.dev/finetunejob"] == "one"
    assert "mine" not in job["metadata"]["labels"]
    assert "command" not in TEMPLATE["spec"]["containers"][0]  # the template is not modified
    assert manifests.job(resource(), training, TEMPLATE, pods=2, max_restarts=3)["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("workers", "wanted", "setting", "pods"),
    [(4, 0, 1, 4), (4, 2, 1, 2), (4, 4, 1, 1), (1, 0, 8, 1), (4, 0, 8, 1), (6, 0, 4, 2), (16, 0, 8, 2), (7, 0, 2, 7)],
)
def test_workers_are_spread_evenly_over_pods(workers: int, wanted: int, setting: int, pods: int) -> None:
    spec = {"workers": workers, **({"workersPerPod": wanted} if wanted else {})}
    assert manifests.pods_of(resource(**spec), setting) == pods


def test_the_template_is_checked_and_its_cores_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    assert manifests.read_template(path) == TEMPLATE
    for text in ("", "spec: {}", "spec: {containers: []}", "spec: {containers: [{name: x}]}", "a: [", "- 1"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="CODEALIGN_OPERATOR_POD_TEMPLATE"):
            manifests.read_template(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        manifests.read_template(tmp_path / "none")
    for resources, cores in (
        ({"limits": {"cpu": "4"}, "requests": {"cpu": "1"}}, 4),
        ({"requests": {"cpu": "2500m"}}, 2),
        ({"requests": {"cpu": "250m"}}, 1),
        ({"limits": {"memory": "1Gi"}}, 1),
        ({}, 1),
    ):
        template = {"spec": {"containers": [{"name": "x", "image": "y", "resources": resources}]}}
        assert manifests.cpus(template) == cores
