"""Speed of the training program relative to TRL's SFTTrainer with the same settings, as a ratio of tokens/s.

    .venv/bin/python tests/bench/training_overhead.py <model folder> [--dataset <folder of Parquet>] [--steps 10]

Both train the same rows, by turns, in processes of their own; the first steps of each are left out. On a CPU
the processor's time is what counts, which other work on the machine disturbs less than the clock. The plain one is
what a script of a dozen lines would be: the library's own dataset preparation, its checkpoints switched off.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from codealign.trainer.sft.job import Job
from codealign.trainer.sft.rows import read_rows

WARM_UP = 2


def ours(job: Job) -> float:
    """Return seconds per step of our program, without the first steps."""
    from codealign.trainer.sft import program
    from codealign.trainer.sft.training import FineTuner

    times: list[float] = []

    class Timed(FineTuner):
        def log(self, *arguments: Any, **more: Any) -> None:
            super().log(*arguments, **more)
            times.append(clock(job))

    program.FineTuner = Timed  # type: ignore[attr-defined]
    program.train(job)
    return per_step(times[: job.max_steps])


def clock(job: Job) -> float:
    """Return seconds: CPU time of all threads on a CPU, otherwise wall-clock time."""
    return time.process_time() if job.device == "cpu" else time.monotonic()


def per_step(times: list[float]) -> float:
    """Return the seconds of a step, without the first steps."""
    return (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)


def plain(job: Job) -> float:
    """Return seconds per step of the library alone, without the first steps."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from codealign.trainer.sft.loading import load_model, load_tokenizer

    torch.set_num_threads(job.threads)
    tokenizer, _ = load_tokenizer(job.model)
    model, _ = load_model(job, tokenizer)
    rows = [
        {
            "prompt": [{"role": "user", "content": row.instruction}],
            "completion": [{"role": "assistant", "content": row.response}],
        }
        for row in read_rows(job.dataset)
    ]
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # the library is untyped
        def on_step_end(self, *arguments: object, **more: object) -> None:
            times.append(clock(job))

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(job.output / "plain"),
            per_device_train_batch_size=job.micro_batch_size,
            gradient_accumulation_steps=job.batch_size // job.micro_batch_size,
            max_steps=job.max_steps,
            learning_rate=job.learning_rate,
            optim="adafactor",
            max_grad_norm=0.0,
            bf16=False,
            activation_checkpointing=False,
            use_cpu=job.device == "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=job.max_length,
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    return per_step(times)


def tokens_per_step(job: Job) -> float:
    """Return the mean over the rows: both programs take the same number of rows per step."""
    from codealign.trainer.sft.encoding import encode
    from codealign.trainer.sft.loading import load_tokenizer

    encoded = encode(load_tokenizer(job.model)[0], read_rows(job.dataset), job.max_length)
    return job.batch_size * sum(len(row.input_ids) for row in encoded.rows) / len(encoded.rows)


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dataset", type=Path, help="rows as a published version has them; default: made here")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rows-at-once", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=2, help="the best of so many alternating runs counts")
    parser.add_argument("--only", choices=("ours", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            training_id="bench",
            model=given.model,
            model_name="bench",
            model_revision="",
            dataset=str(given.dataset or made(Path(folder) / "data")),
            dataset_name="bench",
            output=Path(folder),
            batch_size=given.batch_size,
            micro_batch_size=given.rows_at_once,
            max_steps=given.steps,
            epochs=1000,
            max_length=given.max_length,
            dtype="bfloat16" if given.device == "cuda" else "float32",
            device=given.device,
            threads=given.threads,
            checkpoint_steps=10**6,
        )
        if given.only:
            print((ours if given.only == "ours" else plain)(job))
            return
        tokens = tokens_per_step(job)
    seconds = {"ours": math.inf, "plain": math.inf}
    for _ in range(given.repeat):
        for only in seconds:
            arguments = [sys.executable, __file__, *sys.argv[1:], "--only", only]
            answer = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds[only] = min(seconds[only], float(answer.splitlines()[-1]))
    for name, each in seconds.items():
        print(f"{name:6}{tokens / each:10.1f} tokens/s")
    print(f"ratio {seconds['plain'] / seconds['ours']:10.2f}")


def made(folder: Path) -> Path:
    """Return rows of a few hundred tokens, all of the same length, because the two programs draw them in different
    orders."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    answer = "def add_{n}(a):\n    return a + {n}\n\n\n"
    table = {
        "instruction": [f"Write {count % 7 + 1} functions that add {count} to a number." for count in range(64)],
        "response": ["".join(answer.format(n=at) for at in range(10))] * 64,
    }
    pq.write_table(pa.table(table), folder / "rows.parquet")
    return folder


if __name__ == "__main__":
    main()
