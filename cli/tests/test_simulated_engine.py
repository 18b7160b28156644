"""The simulated engine, used from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from codealign.cli.failures import Failure
from codealign.cli.options import preset_options
from codealign.cli.presets import Preset
from codealign.cli.stack import Options

VARIABLE = "CODEALIGN_INFERENCE_MODEL"


def test_it_does_not_take_a_presets_model_and_keeps_its_benchmarks(tmp_path: Path) -> None:
    preset = Preset("mine", model="some/model", benchmarks=str(tmp_path), inference={"slots": 3})
    options = preset_options(preset, Options(engine="simulated"))
    assert (options.engine, options.model, dict(options.settings)) == ("simulated", "", {})
    assert options.benchmarks == tmp_path
    assert VARIABLE not in options.inference(), "the service's own default: the profile nano"


def test_its_model_is_a_profiles_name_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}")
    for given, sent in (("nano", "nano"), ("./mine.json", str(tmp_path / "mine.json"))):
        options = Options(engine="simulated", model=given)
        options.check()
        assert options.inference()[VARIABLE] == sent
    with pytest.raises(Failure, match=r"no such directory: \./other\.json"):
        Options(engine="simulated", model="./other.json").check()
