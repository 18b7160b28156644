"""Commands as users type them: exit codes and one-line messages."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from codealign.api.coordinator.v1 import coordinator_pb2 as api
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli import diagnosis
from codealign.cli.failures import Failure, Interrupted, rpc_failure
from codealign.cli.home import Home
from codealign.cli.interrupts import run_async
from codealign.cli.main import app
from codealign.cli.run_config import RunChoices, run_config
from codealign.cli.stack import Options, model_source, specs
from codealign.runner.profiles import DEFAULT

AWAY = ["--dataset", "127.0.0.1:1"]
VARIABLES = [f"CODEALIGN_{name}_ADDRESS" for name in ("DATASET", "COORDINATOR", "SANDBOX")]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEALIGN_HOME", str(tmp_path / "home"))
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def codealign(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["seeds", "collect", "/no/such/folder"], "no such file or directory: /no/such/folder", id="seeds"),
        pytest.param(
            ["run", "--seeds", "/no/such/folder"], "no such file or directory: /no/such/folder", id="run, seeds"
        ),
        pytest.param(["run", "--model", "./no/such"], "--model: no such directory: ./no/such", id="run, model"),
        pytest.param(["run", "--engine", "replay"], "needs --recording FILE", id="run, replay"),
        pytest.param(["run", "--recording", "x"], "pass both or neither", id="run, recording alone"),
        pytest.param(["run", "--benchmarks", "/nope"], "no such file or directory: /nope", id="run, benchmarks"),
        pytest.param(["run", "--record", "/nope/x"], "--record: no such directory: /nope", id="run, record"),
        pytest.param(["run", "--preset", "fast"], "unknown preset 'fast'", id="run, preset"),
        pytest.param(["run", "--config", "/no/run.yaml"], "--config: cannot read /no/run.yaml", id="run, config"),
        pytest.param(
            ["data", "publish", "c", "--verdict", "failed-assert"],
            "did you mean FAILED_ASSERTION?",
            id="publish, verdict",
        ),
        pytest.param(
            ["data", "publish", "c", "--verdict", "RAISED", "--not-executed"], "exclude each other", id="publish, both"
        ),
        pytest.param(["data", "diff", "v-1", "v-1"], "v-1 is given twice", id="diff"),
        pytest.param(["data", "diff", "v-1", "v-2", *AWAY], "cannot reach the service", id="diff, away"),
        pytest.param(["rejudge", "first", "--preset", "fast"], "unknown preset 'fast'", id="rejudge, preset"),
        pytest.param(["rejudge", "first", "--recording", "x"], "pass both or neither", id="rejudge, recording"),
        pytest.param(["pipelines", "--coordinator", "127.0.0.1:1"], "cannot reach the service", id="pipelines"),
        pytest.param(["run", "--home", "/proc/nope"], "cannot write the home directory", id="run, home"),
        pytest.param(["experiment", "tabel9"], "unknown experiment 'tabel9'; valid: ablation", id="experiment"),
        pytest.param(
            ["experiment", "table9", "--seeds", "1,x"], "--seeds: must be whole numbers", id="experiment, seeds"
        ),
        pytest.param(["experiment", "table9", "--seeds", "1,1"], "names a seed twice", id="experiment, same seeds"),
        pytest.param(
            ["experiment", "table8", "--preset", "small"], "pass --model other=SOURCE", id="experiment, model"
        ),
        pytest.param(["experiment", "table8", "--model", "other="], "names no source", id="experiment, no source"),
        pytest.param(
            ["experiment", "pause", "first"], "Start the services with `codealign up`", id="experiment, pause"
        ),
        pytest.param(["watch"], ": coordinator, dataset. Start the services", id="watch"),
        pytest.param(["pause", "first"], "Start the services with `codealign up`", id="pause"),
        pytest.param(["data", "show", "zz"], "'zz' is not a record id", id="show"),
        pytest.param(["data", "lineage", "12"], "'12' is not a record id", id="lineage"),
        pytest.param(["sandbox", "exec", "/no/file.py"], "cannot read /no/file.py", id="exec"),
        pytest.param(
            ["sandbox", "exec", __file__, "--isolation", "no"], "must be gvisor or process, is 'no'", id="isolation"
        ),
        pytest.param(["ls", "--coordinator", "127.0.0.1:1", "--tls-ca", "/no/ca"], "cannot read /no/ca", id="tls"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_1(arguments: list[str], message: str) -> None:
    result = codealign(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("codealign: ")


def test_that_there_is_no_isolation_is_chosen_by_name_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "CODEALIGN_SANDBOX_ISOLATION"
    monkeypatch.delenv(variable, raising=False)
    (sandbox,) = specs(Home(tmp_path), Options(), ["sandbox"])
    assert variable not in sandbox.environment
    assert Options().warning() == ""
    chosen = Options(isolation="process")
    (sandbox,) = specs(Home(tmp_path), chosen, ["sandbox"])
    assert sandbox.environment[variable] == "process"
    assert "WITHOUT gVisor" in chosen.warning()
    monkeypatch.setenv(variable, "process")
    assert "WITHOUT gVisor" in Options().warning()


def test_a_home_without_runs_says_how_to_make_one() -> None:
    result = codealign("ls")
    assert result.exit_code == 0
    assert "no runs yet; start one with `codealign run`" in result.output


def test_a_home_without_experiments_says_how_to_make_one() -> None:
    result = codealign("experiment", "ls")
    assert result.exit_code == 0
    assert "no experiments yet; start one with `codealign experiment PRESET`" in result.output


def test_a_service_that_is_away_is_named_with_its_address_and_what_to_do() -> None:
    result = codealign("data", "ls", "--dataset", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "dataset service at 127.0.0.1:1: cannot reach the service" in result.output
    assert "Is it running? `codealign up`" in result.output


def test_a_wrong_option_is_a_usage_error() -> None:
    result = codealign("run", "--bogus")
    assert result.exit_code == 2
    assert "No such option" in result.output


@pytest.mark.parametrize(
    ("option", "least", "most"),
    [
        ("--n", 0, 2**31 - 1),
        ("--attempts", 0, 2**31 - 1),
        ("--round-size", 0, 2**31 - 1),
        ("--prefix-groups", 0, 2**31 - 1),
        ("--max-tokens", 0, 2**31 - 1),
        ("--seed", 1 - 2**63, 2**63 - 1),
        ("--rows", 1, 2**63 - 1),
        ("--token-budget", 1, 2**63 - 1),
        ("--devices", 1, 2**31 - 1),
        ("--lora-rank", 0, 2**31 - 1),
        ("--max-steps", 0, 2**63 - 1),
        ("--problems", 0, 2**31 - 1),
        ("--device-hours", 0, "inf"),
    ],
)
def test_a_number_that_a_run_cannot_hold_is_refused_with_its_option(option: str, least: int, most: int | str) -> None:
    beyond = [str(least - 1), str(most + 1) if isinstance(most, int) else most]
    for given in beyond:
        result = codealign("run", "--seeds", "/no/seeds", f"{option}={given}")
        assert result.exit_code == 2
        assert f"Invalid value for '{option}'" in result.output
    held = codealign("run", "--seeds", "/no/seeds", f"{option}={most if isinstance(most, int) else 3}")
    assert "--seeds: no such file or directory: /no/seeds" in held.output


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["train", "--model", "m", option]
            for option in ("--max-steps", "--batch-size", "--rows", "--max-length", "--lora-rank", "--workers")
        ),
        ["train", "--model", "m", "--checkpoint-steps"],
        ["train", "--model", "m", "--seed"],
        *(["eval", option] for option in ("--samples", "--max-tokens", "--limit", "--seed")),
        ["rejudge", "first", "--memory"],
        ["sandbox", "exec", __file__, "--memory"],
    ],
)
def test_a_number_that_no_service_holds_is_refused_with_its_option(arguments: list[str]) -> None:
    result = codealign(*arguments, str(2**63))
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-1]}'" in result.output


def test_an_argument_that_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["ls", "--coordinator", "127.0.0.1:1", "--tls-ca", "\udcff"]

    def fails(*_: object, **__: object) -> None:
        "\udcff".encode()

    monkeypatch.setattr("codealign.cli.options.client_tls", fails)
    monkeypatch.setattr("sys.argv", ["codealign", *arguments])
    result = codealign(*arguments)
    assert result.exit_code == 1
    assert result.output == "codealign: an argument is no UTF-8 text, which no service takes: \\udcff\n"


def test_debug_shows_where_it_failed() -> None:
    assert "Traceback" in codealign("--debug", "data", "show", "zz").output


def test_version_and_help() -> None:
    assert codealign("--version").output.startswith("codealign 0")
    for command in (
        [],
        ["run"],
        ["data", "lineage"],
        ["data", "diff"],
        ["rejudge"],
        ["pipelines"],
        ["experiment"],
        ["experiment", "table9"],
        ["sandbox", "exec"],
        ["up"],
        ["doctor"],
    ):
        assert codealign(*command, "--help").exit_code == 0


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize(
    ("code", "details", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", "Is it running? `codealign up`"),
        (grpc.StatusCode.UNAVAILABLE, "no runner is ready", "dataset service at h:1: no runner is ready"),
        (grpc.StatusCode.NOT_FOUND, "no run match 'x'", "dataset service at h:1: no run match 'x'"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "does not implement this call"),
        (grpc.StatusCode.INTERNAL, "boom", "internal error: boom. See its log"),
    ],
)
def test_a_services_error_is_its_own_message(code: grpc.StatusCode, details: str, message: str) -> None:
    assert message in rpc_failure(rpc_error(code, details), "dataset", "h:1").message


def test_ctrl_c_has_exit_code_130_and_its_own_message() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)

    with pytest.raises(Interrupted, match="goes on") as caught:
        run_async(work(), lambda: "the same command goes on")
    assert caught.value.exit_code == 130


def test_a_models_name_is_a_folder_only_where_it_is_written_as_one(tmp_path: Path) -> None:
    assert model_source("Qwen/Qwen2.5-Coder-0.5B") == "Qwen/Qwen2.5-Coder-0.5B"
    assert model_source("s3://bucket/model") == "s3://bucket/model"
    assert model_source(str(tmp_path)) == str(tmp_path)
    for missing in ("./x", "/x/y", "~/no-such-model", "a/b/c", "folder/"):
        with pytest.raises(Failure, match="no such directory"):
            model_source(missing)


def test_services_get_their_settings(tmp_path: Path) -> None:
    recording = tmp_path / "r.jsonl"
    recording.touch()
    options = Options(engine="replay", recording=recording, benchmarks=tmp_path)
    options.check()
    found = {spec.name: spec for spec in specs(Home(tmp_path), options)}
    assert found["dataset"].environment == {"CODEALIGN_DATASET_DATA_DIR": str(tmp_path / "data")}
    assert found["inference"].environment == {
        "CODEALIGN_INFERENCE_ENGINE": "replay",
        "CODEALIGN_INFERENCE_MODEL": str(recording),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    assert found["coordinator"].environment == {
        "CODEALIGN_COORDINATOR_LEASE_HOLDER": f"{socket.gethostname()}-{os.getpid()}",
        "CODEALIGN_COORDINATOR_BENCHMARKS": str(tmp_path),
        "CODEALIGN_COORDINATOR_EVALUATION_DATA": str(tmp_path),
    }
    assert set(found["coordinator"].needs) == {"dataset", "sandbox", "inference", "training"}


def test_the_default_configuration_leaves_the_defaults_to_the_coordinator(pipeline: api.Pipeline) -> None:
    config = run_config(RunChoices(limit=12), "stdlib", "nano", pipeline)
    expected = pb.Run(seeds=pb.SeedSelection(collection="stdlib", limit=12), model=pb.ModelChoice(model="nano"))
    config.ClearField("execution")
    config.ClearField("selection")
    assert config == expected


def test_programs_may_be_run_several_times_to_find_those_that_are_flaky(pipeline: api.Pipeline) -> None:
    assert run_config(RunChoices(runs=3), "stdlib", "m", pipeline).execution.runs == 3


def test_the_preset_paper_switches_every_gain_off(pipeline: api.Pipeline) -> None:
    config = run_config(RunChoices(preset="paper", attempts=7), "stdlib", "", pipeline)
    assert [stage.stage for stage in config.stages] == ["concepts", "instructions", "responses"]
    assert all(stage.unpooled for stage in config.stages)
    assert config.stages[2].round_size == 7
    assert config.selection.strategy == "random-pass"
    assert config.selection.near_duplicates == "band-collision"


def test_doctor_passes_where_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_there", lambda module: True)
    monkeypatch.setattr(diagnosis, "_gvisor", list)
    result = codealign("doctor")
    assert result.exit_code == 0
    assert "no problems found" in result.output


def test_doctor_tries_the_packages_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(diagnosis.PROGRAM_PACKAGES) == set(DEFAULT.packages)
    broken = tmp_path / "broken_package.py"
    broken.write_text("raise ImportError('no such library')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    packages = {"json": ("json", "json.tool"), "broken_package": ("broken_package",), "no_such": ("no_such",)}
    monkeypatch.setattr(diagnosis, "PROGRAM_PACKAGES", packages)
    works, fails, absent = diagnosis._program_packages()
    assert (works.level, works.found) == ("ok", "may import json")
    assert (fails.level, fails.found) == (
        "problem",
        "broken_package cannot be imported: ImportError: no such library",
    )
    assert (absent.level, absent.found) == ("note", "no_such is not installed: programs cannot import it")
    assert "pip install no_such" in absent.remedy


def test_doctor_says_what_is_missing_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_there", lambda module: "inference" not in module)
    monkeypatch.setenv("CODEALIGN_DATASET_PORT", "99999")
    result = codealign("doctor", "--home", "/proc/nope")
    assert result.exit_code == 1
    assert "pip install codealign-inference" in result.output
    assert "CODEALIGN_DATASET_PORT=99999: not a port number" in result.output
    assert "pass another directory with --home" in result.output


def test_doctor_says_that_the_sandbox_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None if name == "ziglang" else object())
    (finding,) = diagnosis._compiler()
    assert (finding.level, finding.found) == (
        "problem",
        "no C compiler found; the sandbox's fork server has a native part",
    )
    assert "ziglang" in finding.remedy


@pytest.mark.parametrize(
    ("version", "apt", "level"),
    [
        ("runsc version release-20260907.0", False, "ok"),
        ("runsc version 20221219", True, "note"),
        ("runsc version 20221219", False, "problem"),
        (None, True, "ok"),
        (None, False, "problem"),
    ],
)
def test_doctor_knows_which_gvisor_isolates(
    monkeypatch: pytest.MonkeyPatch, version: str | None, apt: bool, level: str
) -> None:
    present = {"runsc": version is not None, "apt-get": apt}
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if present.get(name) else None)
    monkeypatch.setattr(diagnosis, "_runsc_version", lambda path: version or "")
    (finding,) = diagnosis._gvisor()
    assert finding.level == level
    assert ("releases of 2026" in finding.found) == (level == "ok" and version is None)


def test_the_small_preset_asks_for_easy_tasks_and_yields_to_what_was_chosen(pipeline: api.Pipeline) -> None:
    def difficulties(config: pb.Run) -> list[str]:
        return [value for stage in config.stages for draw in stage.properties for value in draw.values]

    config = run_config(RunChoices(preset="small"), "stdlib", "m", pipeline)
    assert difficulties(config) == ["easy"]
    assert (config.stages[2].attempts, config.stages[2].prefix_groups) == (4, 1)
    choices = RunChoices(preset="small", attempts=7, temperature=0.9, difficulties=("hard",))
    chosen = run_config(choices, "stdlib", "m", pipeline)
    assert chosen.stages[2].attempts == 7
    assert chosen.stages[2].temperature == 0.9
    assert difficulties(chosen) == ["hard"]


@pytest.mark.parametrize("option", ["--inference", "--training"])
def test_a_run_takes_no_address_that_it_would_not_use(option: str) -> None:
    """The coordinator calls these services; its own settings hold their addresses."""
    result = codealign("run", option, "127.0.0.1:1")
    assert result.exit_code == 2
    assert "No such option" in " ".join(result.output.split())


@pytest.mark.parametrize("variable", ["CODEALIGN_INFERENCE_ADDRESS", "CODEALIGN_TRAINING_ADDRESS"])
def test_an_address_that_a_run_does_not_use_does_not_send_it_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:1")
    result = codealign("run", "--collection", "c", "--home", "/proc/nope")
    assert "cannot write the home directory" in result.output


def test_doctor_tells_of_a_home_that_cannot_be_looked_at() -> None:
    result = codealign("doctor", "--home", "x" * 300)
    assert "cannot be used (File name too long)" in " ".join(result.output.split())
    assert "this is a bug" not in result.output
