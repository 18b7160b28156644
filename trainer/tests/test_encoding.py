"""Training data: rendering of the chat template, and loss only on the answer and its end token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from codealign.trainer.sft.encoding import IGNORED, encode, end_token, prepare_tokenizer
from codealign.trainer.sft.job import TrainingError
from codealign.trainer.sft.rows import Row
from codealign.trainer.sft.template import INSTRUCTION_HEADER, RESPONSE_HEADER, SYSTEM_SENTENCE
from trainer.tests.tiny import END, make_model

ROW = Row("r", "Add two numbers.\nUse Python.", "Here:\n```python\ndef add(a, b):\n    return a + b\n```")
CHATML = (
    "{% for m in messages %}<|open|>{{ m.role }}\n{{ m.content }}<|close|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)


def load(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def tokenizer(model_folder: Path) -> Any:
    tokenizer = load(model_folder)
    prepare_tokenizer(tokenizer)
    return tokenizer


def test_the_prompt_is_a_system_sentence_and_two_headers(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Add."}], tokenize=False, add_generation_prompt=True
    )
    assert text == f"{SYSTEM_SENTENCE}\n\n{INSTRUCTION_HEADER}\nAdd.\n\n{RESPONSE_HEADER}\n"


def test_every_token_is_the_templates_and_the_loss_is_on_answer_and_end_token_alone(tokenizer: Any) -> None:
    encoded = encode(tokenizer, [ROW], 512).rows[0]
    question = [{"role": "user", "content": ROW.instruction}]
    conversation = [*question, {"role": "assistant", "content": ROW.response}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(conversation, return_dict=False)
    assert encoded.input_ids == whole
    assert encoded.input_ids[: len(prompt)] == prompt
    answer = tokenizer(ROW.response, add_special_tokens=False).input_ids
    expected = [IGNORED] * len(prompt) + answer + [tokenizer.eos_token_id]
    assert encoded.labels == expected
    assert encoded.trained == len(answer) + 1
    assert tokenizer.decode(encoded.input_ids) == tokenizer.apply_chat_template(conversation, tokenize=False)


def test_what_collation_pads_is_not_in_the_loss_and_the_end_token_is(tokenizer: Any) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    short, long = encode(tokenizer, [Row("a", "x", "y"), ROW], 512).rows
    batch = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)(
        [{"input_ids": row.input_ids, "labels": row.labels} for row in (short, long)]
    )
    labels, ids, seen = (batch[name][0].tolist() for name in ("labels", "input_ids", "attention_mask"))
    size = len(short.input_ids)
    assert labels[:size] == short.labels
    assert labels[size - 1] == tokenizer.eos_token_id
    assert set(labels[size:]) == {IGNORED}
    assert set(ids[size:]) == {tokenizer.pad_token_id}
    assert seen == [1] * size + [0] * (len(ids) - size)


def test_a_missing_pad_token_is_installed_and_is_never_the_end_token(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        "is-end": {"pad_token": END},
        "known": {"special": ["<fim_pad>"]},
        "own": {"special": ["<pad>"], "pad_token": "<pad>"},
    }
    pads = {}
    for name, options in cases.items():
        tokenizer = load(make_model(tmp_path / name, **options))
        notes = prepare_tokenizer(tokenizer)
        assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
        assert ("padding uses" in " ".join(notes)) == (name != "own")
        pads[name] = tokenizer.pad_token
    assert pads == {"none": "<|pad|>", "is-end": "<|pad|>", "known": "<fim_pad>", "own": "<pad>"}


def test_the_base_models_own_template_is_used_with_its_own_end_token(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "chat", chat_template=CHATML, special=["<|open|>", "<|close|>"])
    tokenizer = load(folder)
    assert "base model's own chat template" in prepare_tokenizer(tokenizer)[0]
    close = tokenizer.convert_tokens_to_ids("<|close|>")
    assert end_token(tokenizer) == close
    encoded = encode(tokenizer, [ROW], 512).rows[0]
    assert encoded.labels[-1] == close
    trained = tokenizer.decode([label for label in encoded.labels if label != IGNORED])
    assert trained == ROW.response + "<|close|>"
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": ROW.instruction}, {"role": "assistant", "content": ROW.response}], tokenize=False
    )
    assert whole == tokenizer.decode(encoded.input_ids) + "\n"  # text after the end token is not trained on


def test_a_tokenizer_that_begins_every_text_with_a_token_gets_it_in_the_template(tmp_path: Path) -> None:
    from tokenizers import processors

    tokenizer = load(make_model(tmp_path / "bos", special=["<|begin|>"], bos_token="<|begin|>"))
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    prepare_tokenizer(tokenizer)
    encoded = encode(tokenizer, [ROW], 512).rows[0]
    assert encoded.input_ids[0] == begin
    assert encoded.input_ids.count(begin) == 1


def test_long_rows_are_cut_and_counted_and_those_without_an_answer_left_out(tokenizer: Any) -> None:
    rows = [Row("short", "x", "y"), Row("cut", "x", "y " * 200), Row("gone", "x " * 200, "y")]
    limit = len(encode(tokenizer, rows[:1], 512).rows[0].input_ids) + 5
    encoded = encode(tokenizer, rows, limit)
    assert [row.row for row in encoded.rows] == ["short", "cut"]
    assert (encoded.truncated, encoded.dropped) == (1, 1)
    assert len(encoded.rows[1].input_ids) == limit
    assert encoded.rows[1].labels[-1] != tokenizer.eos_token_id
    with pytest.raises(TrainingError, match=r"raise spec\.max_length"):
        encode(tokenizer, rows, 8)


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="no end token"):
        prepare_tokenizer(tokenizer)
