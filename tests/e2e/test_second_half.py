"""After the rows: training, evaluation and report, with a tiny random Llama that learns and solves nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.e2e.commands import codealign, command
from tests.e2e.recorded import Seeds

pytestmark = pytest.mark.gvisor
END = "<|end|>"
SEED = '''
def clamp(value: int, low: int, high: int) -> int:
    """Return the value, but at least `low` and at most `high`."""
    if value < low:
        return low
    return min(value, high)
'''
PROBLEMS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add_{number}(x):\n    """Add {number}."""\n',
        "canonical_solution": f"    return x + {number}\n",
        "entry_point": f"add_{number}",
        "base_input": [[1], [2]],
        "plus_input": [[-1]],
        "contract": "",
        "atol": 0,
    }
    for number in range(4)
]


class Tuned(NamedTuple):
    home: Path
    base: Path
    version: str
    url: str
    benchmarks: Path


def tiny_llama(folder: Path) -> Path:
    """A random model that fits a row, and a tokenizer without pad token and chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(["def add(a, b):\n    return a + b\n"] * 4, learner)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def training(home: Path, base: Path, version: str) -> str:
    return codealign(home, "train", version, "--model", str(base), "--max-steps", "2", "--batch-size", "2")


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory,
    recorded_seeds: Seeds,
    services_up: Callable[..., AbstractContextManager[None]],
) -> Iterator[Tuned]:
    """A model trained by commands that start their services, and then services that are running for all other ones."""
    home = tmp_path_factory.mktemp("loop")
    codealign(home, *recorded_seeds.replay())
    version = next(home.rglob("manifest.json")).parent.name
    base = tiny_llama(tmp_path_factory.mktemp("tiny"))
    told = training(home, base, version)
    assert "succeeded" in told
    url = re.search(r"file://\S+", told)
    assert url
    benchmarks = tmp_path_factory.mktemp("benchmarks") / "HumanEvalPlus.jsonl"
    benchmarks.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    with services_up(home, "--model", str(base), "--benchmarks", str(benchmarks)):
        yield Tuned(home, base, version, url[0], benchmarks)


def evaluating(tuned: Tuned, *more: str) -> list[str]:
    options = ("--model", tuned.url, "--benchmarks", str(tuned.benchmarks), "--benchmark", "humaneval+")
    return ["eval", *options, "--max-tokens", "8", *more]


def test_the_tuned_model_is_a_whole_one(tuned: Tuned) -> None:
    folder = Path(tuned.url.removeprefix("file://"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    before = transformers.AutoModelForCausalLM.from_pretrained(tuned.base).state_dict()
    after = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_training_that_was_done_is_not_done_again(tuned: Tuned) -> None:
    started = {path: path.stat().st_mtime_ns for path in tuned.home.joinpath("trainings").rglob("*.safetensors")}
    assert tuned.url in training(tuned.home, tuned.base, tuned.version)
    assert {path: path.stat().st_mtime_ns for path in started} == started


def test_it_is_evaluated_and_told_of(tuned: Tuned, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    told = codealign(tuned.home, *evaluating(tuned, "--limit", "3", "--samples-file", str(samples)))
    assert "3/3" in told
    assert "tuned" in told, "a trained model is asked by an instruction unless a person says otherwise"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"task_id", "solution"}] * 3
    page = tmp_path / "report.html"
    text = codealign(tuned.home, "report", "--html", str(page))
    assert "humaneval+" in text.lower()
    assert tuned.version in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "v-0000000000000000", "--model", "{base}"), "v-0000000000000000"),
        (("train", "{version}", "--model", "./nowhere"), "--model: no such directory: ./nowhere"),
        (("train", "{version}", "--model", "{base}", "--schedule", "zigzag"), "spec.schedule"),
        (("eval", "--model", "{url}", "--benchmarks", "{base}/config.json"), "config.json"),
        (("eval", "--prompt", "poem"), "--prompt: unknown style 'poem'"),
        (("run", "--until", "tomorrow"), "--until: unknown value 'tomorrow'"),
    ],
)
def test_wrong_input_is_told_in_one_message(
    tuned: Tuned, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    filled = [part.format(base=tuned.base, version=tuned.version, url=tuned.url) for part in arguments]
    # Benchmarks are read by services that a command starts.
    home = tmp_path if "--benchmarks" in arguments else tuned.home
    ended = subprocess.run(command(home, *filled), capture_output=True, text=True, timeout=180)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_run_without_benchmarks_goes_on_to_its_training_and_says_so(tuned: Tuned, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "clamp.py").write_text(SEED)
    arguments = ("run", "--model", str(tuned.base), "--preset", "small", "--seeds", str(seeds), "--max-tokens", "8")
    ended = subprocess.run(
        command(tmp_path / "home", *arguments, "--until", "evaluation"),
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert "note: skipping the evaluation, the run ends after training: humaneval+: no local file" in ended.stderr
    assert "pass --benchmarks DIRECTORY (make run: BENCHMARKS=DIRECTORY)" in ended.stderr
    assert "succeeded: seeds 1/1 kept 1" in ended.stderr
    assert "the run kept no rows to train on; use more seeds" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1
