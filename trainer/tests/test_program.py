"""The program with one worker: results, resumption, and errors."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

from codealign.common import adapters
from codealign.common.model_identity import revision
from codealign.trainer.sft.checkpoints import CheckpointFolder
from codealign.trainer.sft.job import Job, LoraSettings, TrainingError
from codealign.trainer.sft.program import train
from codealign.trainer.sft.progress import read_outcome
from trainer.tests.conftest import Start, curve, events, log_of, weights
from trainer.tests.tiny import END, make_dataset, make_job, make_model

pytestmark = pytest.mark.slow


def same(one: Job, two: Job) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(model_folder: Path, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """An undisturbed training."""
    job = make_job(model_folder, dataset_folder, tmp_path_factory.mktemp("whole"))
    outcome = train(job)
    assert (outcome.state, outcome.steps) == ("succeeded", 12)
    return job


def test_the_result_is_a_model_that_can_be_served(whole: Job, tmp_path: Path) -> None:
    names = {path.name for path in whole.result.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"} <= names
    model = transformers.AutoModelForCausalLM.from_pretrained(whole.result)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole.result)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Write a function that adds 3 to a number."}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    assert model.generate(**prompt, max_new_tokens=4).shape[1] > prompt["input_ids"].shape[1]
    losses = curve(whole)
    assert losses[12] < losses[1] - 0.5
    card = (whole.result / "README.md").read_text()
    for fact in ("tiny", "v-tiny", "0" * 64, '"learning_rate": 0.001', "float32 on cpu, 1 worker", "| 12 |"):
        assert fact in card
    assert str(whole.output) not in card
    assert len(revision(whole.result, tmp_path)) == 64


def test_the_loss_is_the_models_own_on_answer_tokens(whole: Job, model_folder: Path) -> None:
    from codealign.trainer.sft.encoding import encode
    from codealign.trainer.sft.loading import load_model, load_tokenizer
    from codealign.trainer.sft.order import plan
    from codealign.trainer.sft.rows import read_rows

    tokenizer, _ = load_tokenizer(model_folder)
    model, _ = load_model(whole, tokenizer)
    encoded = encode(tokenizer, read_rows(whole.dataset), whole.max_length).rows
    order = plan(len(encoded), batch_size=4, epochs=2, max_steps=0, seed=0)
    total, count = 0.0, 0
    with torch.no_grad():
        for at in order.step(1):
            row = encoded[at]
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
            labels = torch.tensor(row.labels[1:])
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100))
            count += row.trained
    assert curve(whole)[1] == pytest.approx(total / count, rel=1e-5)
    assert events(whole, "step")[0]["trained_tokens"] == count


def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(
    whole: Job, model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "killed")
    kills = 0
    for wait_for, delay in (("step", 0.0), ("checkpoint", 0.02)):
        before = len(events(job, wait_for))
        process = start(job)
        while len(events(job, wait_for)) < before + 2 and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    if read_outcome(job.outcome_file) is None:
        train(job)
    assert kills
    assert events(job, "started")[-1]["resumed_step"] > 0
    assert curve(job) == curve(whole)
    assert same(job, whole)


def test_no_checkpoint_is_resumed_from_that_is_incomplete(
    whole: Job, model_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", max_steps=5)
    train(job)
    folder = CheckpointFolder(job.checkpoints, job.training_id)
    assert folder.newest() == 5
    partial = folder.partial / "checkpoint-9"
    partial.mkdir(parents=True)
    weight_file = job.checkpoints / "checkpoint-5" / "model.safetensors"
    weight_file.write_bytes(weight_file.read_bytes()[:-10])
    assert folder.newest() == 0
    train(job)
    assert events(job, "started")[-1]["resumed_step"] == 0
    assert not partial.exists()


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_a_checkpoint_that_cannot_be_read_is_named(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, damaged: str
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", max_steps=2)
    train(job)
    file = job.checkpoints / "checkpoint-2" / damaged
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(TrainingError, match=r"checkpoint-2 cannot be read \(.*Remove it, then submit"):
        train(job.model_copy(update={"max_steps": 4}))


def test_a_checkpoint_of_rows_in_another_order_is_not_resumed_from(
    whole: Job, model_folder: Path, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "data", 22)
    job = make_job(model_folder, dataset, tmp_path / "job", max_steps=5)
    train(job)
    label = job.checkpoints / "checkpoint-5" / "codealign.json"
    older = json.loads(label.read_text())
    del older["rows"]  # as earlier releases wrote it
    label.write_text(json.dumps(older))
    train(job.model_copy(update={"max_steps": 0}))
    started = events(job, "started")
    assert [event["resumed_step"] for event in started] == [0, 0]
    assert "the checkpoint of step 5 is not used" in events(job, "note")[-1]["text"]
    assert same(job, whole)


def test_a_gpu_too_small_for_the_model_is_explained(
    model_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("codealign.trainer.sft.training.SFTTrainer.__init__", no_room)  # it moves the model there
    with pytest.raises(TrainingError, match=r"the GPU is out of memory \(CUDA out of memory.*spec\.lora"):
        train(make_job(model_folder, dataset_folder, tmp_path / "job"))


def test_a_checkpoint_of_another_training_is_refused(model_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", max_steps=1)
    train(job)
    other = job.model_copy(update={"training_id": "o" * 32})
    with pytest.raises(TrainingError, match=r"checkpoint-1 is a checkpoint of another training \(tiny on v-tiny\)"):
        train(other)


def test_adapters_are_merged_and_resumed_exactly(model_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    lora = LoraSettings(rank=4, alpha=8, dropout=0.1)
    job = make_job(model_folder, dataset_folder, tmp_path / "lora", lora=lora)
    train(job)
    base = load_file(model_folder / "model.safetensors")
    tuned = weights(job)
    assert base.keys() == tuned.keys()
    changed = {name for name in base if not torch.equal(base[name], tuned[name][: len(base[name])])}
    assert changed == {name for name in base if "proj" in name}
    transformers.AutoModelForCausalLM.from_pretrained(job.result)
    # The tokenizer has tokens that the base has no embeddings for, and an adapter does not carry any.
    assert not (job.result / "adapter").exists()

    halfway = make_job(model_folder, dataset_folder, tmp_path / "resumed", lora=lora)
    writer = CheckpointFolder(halfway.checkpoints, halfway.training_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codealign.trainer.sft.training.FineTuner.log", _stop_after_step_7())
        with pytest.raises(KeyboardInterrupt):
            train(halfway)
    assert writer.newest() == 6
    train(halfway)
    assert same(halfway, job)


def test_an_adapter_beside_the_merged_weights_makes_the_same_model_of_the_base(
    dataset_folder: Path, tmp_path: Path
) -> None:
    base = make_model(tmp_path / "base", special=["<|pad|>"], pad_token="<|pad|>")
    lora = LoraSettings(rank=4, alpha=8)
    job = make_job(base, dataset_folder, tmp_path / "job", lora=lora, max_steps=4)
    train(job)
    folder = job.result / "adapter"
    tuned = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder)
    merged = tuned.merge_and_unload().state_dict()
    for name, value in weights(job).items():
        assert torch.allclose(merged[name], value, atol=1e-6), name
    belonging = adapters.read_belonging(folder)
    assert belonging.base_revision == job.model_revision
    assert belonging.revision == revision(job.result, tmp_path / "cache"), "the adapter is no part of the revision"
    assert str(tmp_path) not in (folder / adapters.CONFIG).read_text()
    assert transformers.AutoTokenizer.from_pretrained(folder).pad_token == "<|pad|>"

    content = bytearray((folder / adapters.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / adapters.WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its digest is not the one"):
        adapters.read_belonging(folder)


def _stop_after_step_7() -> object:
    from codealign.trainer.sft.training import FineTuner

    log = FineTuner.log

    def stopping(self: FineTuner, *arguments: object) -> None:
        log(self, *arguments)  # type: ignore[arg-type]
        if self.state.global_step == 7:
            raise KeyboardInterrupt

    return stopping


def test_a_loss_that_is_no_number_stops_the_training_and_keeps_the_last_checkpoint(
    model_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    # The first step's rate is 0. The second update is finite for 1e30, and not for 1e39.
    for rate, message, kept in (
        (1e30, "step 3: loss or gradient is not finite", 2),
        (1e39, "step 2: the update made weights non-finite", 1),
    ):
        job = make_job(model_folder, dataset_folder, tmp_path / str(rate), learning_rate=rate, checkpoint_steps=1)
        with pytest.raises(TrainingError, match=rf"{message}.*row-0.*The checkpoint of step {kept} is kept"):
            train(job)
        assert CheckpointFolder(job.checkpoints, job.training_id).newest() == kept
        assert len(events(job, "diverged")[0]["rows"]) == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("a small file system is mounted for this test, which needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_the_checkpoint_that_was_there_and_says_what_is_missing(
    model_folder: Path, dataset_folder: Path, small_disk: Path
) -> None:
    job = make_job(model_folder, dataset_folder, small_disk / "job", checkpoint_steps=2, max_steps=2)
    train(job)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(b"x" * (free - 100_000))
    more = job.model_copy(update={"max_steps": 6})
    with pytest.raises(TrainingError, match=r"disk space for the checkpoint of step 4.*needs about .* MB too little"):
        train(more)
    folder = CheckpointFolder(job.checkpoints, job.training_id)
    assert folder.newest() == 2
    assert not folder.partial.exists()
    ballast.unlink()
    assert train(more).steps == 6


def test_a_write_that_fails_keeps_the_checkpoint_that_was_there(
    model_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", checkpoint_steps=2, max_steps=2)
    train(job)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # like a quota: no file beyond 200 kB
    try:
        with pytest.raises(TrainingError, match="not enough disk space for the checkpoint of step 4"):
            train(job.model_copy(update={"max_steps": 6}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert CheckpointFolder(job.checkpoints, job.training_id).newest() == 2


def test_gradient_checkpointing_changes_memory_and_not_the_result(
    whole: Job, model_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    job = make_job(model_folder, dataset_folder, tmp_path / "job", gradient_checkpointing=True)
    train(job)
    assert same(job, whole)


def test_bad_input_is_one_sentence(model_folder: Path, dataset_folder: Path, tmp_path: Path, start: Start) -> None:
    empty = make_dataset(tmp_path / "empty", table=[])
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), other / "rows.parquet")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    cases: dict[str, dict[str, Any]] = {
        "has no rows": {"dataset": str(empty)},
        "lacks the columns instruction and response (it has prompt, answer)": {"dataset": str(other)},
        "contains no *.parquet file": {"dataset": str(nothing)},
        "has no usable tokenizer": {"model": nothing},
        "raise spec.max_length": {"max_length": 4},
        "spec.lora.target_modules nowhere": {"lora": LoraSettings(target_modules=("nowhere",))},
    }
    for at, (message, changes) in enumerate(cases.items()):
        job = make_job(model_folder, dataset_folder, tmp_path / f"job-{at}").model_copy(update=changes)
        with pytest.raises(TrainingError) as caught:
            train(job)
        assert message in str(caught.value)
    job = make_job(model_folder, empty, tmp_path / "process")
    process = start(job)
    assert process.wait(60) == 1
    outcome = read_outcome(job.outcome_file)
    assert outcome is not None
    assert outcome.state == "failed"
    assert outcome.message == log_of(job).strip().splitlines()[-1]


def test_dropout_is_off_and_a_vocabulary_with_room_is_not_enlarged(dataset_folder: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", special=["<pad>"])
    config = json.loads((folder / "config.json").read_text())
    config["attention_dropout"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    job = make_job(folder, dataset_folder, tmp_path / "job", max_steps=2)
    train(job)
    notes = " ".join(event["text"] for event in events(job, "note"))
    assert "dropout of the base model is disabled: attention_dropout" in notes
    assert "embeddings" not in notes
    assert json.loads((job.result / "tokenizer_config.json").read_text())["pad_token"] == "<pad>"
    assert END != "<pad>"
