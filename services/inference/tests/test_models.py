"""Every fault of a model is reported in one sentence that says what to do; and the model's identity."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from codealign.common.errors import ConfigurationError
from codealign.common.machine import available_memory
from codealign.common.model_identity import revision
from codealign.inference.engine_opener import configured_source
from codealign.inference.engines.transformers import loading
from codealign.inference.engines.transformers.loading import LoadedModel, load_model
from codealign.inference.engines.transformers.options import EngineOptions
from codealign.inference.settings import InferenceSettings


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "spoilt"))


@pytest.fixture
def refused(cache_folder: Path, options: EngineOptions) -> Callable[..., str]:
    def refuse(source: object, **more: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            load_model(str(source), cache_folder=cache_folder, options=options, **more)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


Refused = Callable[..., str]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_folder(refused: Refused, tmp_path: Path) -> None:
    assert "does not exist: give a folder or a hub id" in refused(tmp_path / "none")
    assert "does not exist" in refused("./none")
    assert "does not exist" in refused("a/b/c")


def test_a_hub_id_while_offline(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refused("nobody/no-such-model")
    assert "not a folder or in the local hub cache" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "give its folder" in message


def test_a_hub_id_that_does_not_exist(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    from huggingface_hub.errors import RepositoryNotFoundError

    def unknown(*_: object, **__: object) -> str:
        request = httpx2.Request("GET", "https://huggingface.co")
        raise RepositoryNotFoundError("404", response=httpx2.Response(404, request=request))

    monkeypatch.setattr("huggingface_hub.snapshot_download", unknown)
    assert "neither a folder nor a public model on the hub" in refused("nobody/no-such-model")
    assert "neither a folder nor a public model on the hub" in refused("nobody/no-such-model")


def test_an_id_that_cannot_be_one(refused: Refused) -> None:
    assert "neither a folder nor" in refused("nobody/no such model!")


def test_a_folder_without_a_model(refused: Refused, tmp_path: Path) -> None:
    assert "has no config.json: it is not a model folder" in refused(tmp_path)


def test_a_damaged_configuration(refused: Refused, folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json cannot be used" in refused(folder)


def test_an_unknown_architecture(refused: Refused, folder: Path) -> None:
    edit(folder / "config.json", model_type="no-such-type")
    assert "config.json cannot be used" in refused(folder)


@pytest.mark.parametrize(
    ("model_type", "architecture"), [("t5", "T5ForConditionalGeneration"), ("bert", "BertForMaskedLM")]
)
def test_a_model_that_is_no_causal_one(refused: Refused, folder: Path, model_type: str, architecture: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    assert f"is {architecture}, not a causal language model" in refused(folder)


def test_a_kind_of_layer_that_is_not_served(refused: Refused, folder: Path) -> None:
    edit(folder / "config.json", model_type="qwen3_next", architectures=["Qwen3NextForCausalLM"])
    assert "linear_attention" in refused(folder)


def test_a_missing_tokenizer(refused: Refused, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "no usable tokenizer" in refused(folder)


def test_no_weights(refused: Refused, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "contains no *.safetensors file (pytorch_model.bin is a pickle" in refused(folder)


def test_cut_weights(refused: Refused, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors is damaged (it has" in refused(folder)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}x"])
def test_weights_that_are_something_else(refused: Refused, folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is damaged" in refused(folder)


def test_a_missing_part(refused: Refused, folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks model-2.safetensors" in refused(folder)


def test_weights_of_another_shape(refused: Refused, folder: Path) -> None:
    edit(folder / "config.json", hidden_size=96)
    assert "cannot be loaded" in refused(folder)


def test_weights_that_lack_layers(refused: Refused, folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)
    assert "lack 9 tensors" in refused(folder)


def test_too_little_memory(refused: Refused, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_memory", lambda: 10**8)
    assert "GB are free: use a smaller model or dtype" in refused(model_folder)


def test_memory_counts_what_the_kernel_can_give() -> None:
    available = available_memory()
    assert available is None or available > 10**7


def test_no_model_is_set() -> None:
    with pytest.raises(ConfigurationError, match="CODEALIGN_INFERENCE_MODEL"):
        configured_source(InferenceSettings())


def test_the_revision_is_of_weights_tokenizer_and_configuration(
    folder: Path, model_folder: Path, cache_folder: Path, loaded: LoadedModel
) -> None:
    first = revision(folder, cache_folder)
    assert first == revision(model_folder, cache_folder) == loaded.info.revision
    (folder / "README.md").write_text("words")
    assert revision(folder, cache_folder) == first
    revisions = {first}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder / name).open("ab") as stream:
            stream.write(b" ")
        revisions.add(revision(folder, cache_folder))
    assert len(revisions) == 4


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache = tmp_path / "model", tmp_path / "cache"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"x" * 2**21)
    hashed = []
    file_digest = hashlib.file_digest

    def counted(*args: Any) -> Any:
        hashed.append(args)
        return file_digest(*args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    first = revision(model, cache)
    assert revision(model, cache) == first
    assert len(hashed) == 1
    (model / "model.safetensors").write_bytes(b"y" * 2**21)
    assert revision(model, cache) != first


def test_the_model_describes_itself(loaded: LoadedModel, model_folder: Path) -> None:
    info = loaded.info
    assert (info.name, info.engine, info.dtype, info.device) == ("tiny", "transformers", "float64", "cpu")
    assert (info.context_length, info.batch_invariant) == (256, True)
    assert "<assistant>" in info.chat_template
    parameters = transformers.AutoModelForCausalLM.from_pretrained(model_folder).num_parameters()
    assert info.size_bytes == 8 * parameters


def test_a_float32_model_is_not_batch_invariant(model_folder: Path, cache_folder: Path, options: EngineOptions) -> None:
    info = load_model(str(model_folder), name="other", cache_folder=cache_folder, options=options).info
    assert (info.name, info.dtype, info.batch_invariant) == ("other", "float32", False)
