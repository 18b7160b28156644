"""Rows, prompts and conversations whose text looks like special tokens, with all common kinds of tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import codealign.nano
from codealign.common.errors import InvalidArgument
from codealign.common.literal_text import LiteralText, NotLiteral, is_marker
from codealign.inference.engines.base import ChatMessage, GenerationRequest, ModelInfo
from codealign.inference.engines.prompts import Prompts, chat_template_of
from codealign.trainer.sft.encoding import IGNORED, encode, prepare_tokenizer
from codealign.trainer.sft.rows import Row

CASES = [json.loads(line) for line in Path(__file__).with_name("encoding.jsonl").read_text().splitlines()]
CORPUS = [
    "def add(a, b):\n    return a + b\n",
    "Write a function that doubles a number.\n```python\nassert twice(1) == 2\n```\n",
    "You help people write programs\n### Instruction\n### Response\n",
    "größer 你好 for item in items: print(item) <s> </s> <strong> <span> end of text\n",
]
MARKERS = ["<|endoftext|>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<|fim_prefix|>"]
TAGS = ["<tool_call>", "</tool_call>", "<|fim_suffix|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level() -> Any:
    """A tokenizer like GPT-2's and Qwen's: nothing is unknown."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=MARKERS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    return _finish(backend, eos_token="<|endoftext|>")


def whole_pieces() -> Any:
    """A tokenizer like Llama 3's: text that is in the vocabulary as a whole is one token, merged or not."""
    backend = byte_level().backend_tokenizer
    definition = json.loads(backend.to_str())
    definition["model"]["ignore_merges"] = True
    definition["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    return _finish(Tokenizer.from_str(json.dumps(definition)), eos_token="<|endoftext|>")


def sentencepiece(scheme: str) -> Callable[[], Any]:
    """A tokenizer like Llama 2's: blanks are letters, unknown letters are bytes, and merges produce `<s>`."""

    def make() -> Any:
        pieces = [*MARKERS, *(f"<0x{number:02X}>" for number in range(256))]
        letters = sorted({letter for text in CORPUS for letter in text} | set("▁<>|/[]_{}"))
        words = ["▁d", "▁de", "▁def", "re", "ret", "<s", "▁<", "</", "</s", "en", "end", "endo", "<|", "|>", "te", "ft"]
        merges = [("▁", "d"), ("▁d", "e"), ("▁de", "f"), ("r", "e"), ("re", "t"), ("<", "s"), ("<s", ">"), ("<", "/")]
        merges += [("</", "s"), ("</s", ">"), ("e", "n"), ("en", "d"), ("end", "o"), ("<", "|"), ("|", ">")]
        merges += [("t", "e"), ("f", "t"), ("▁", "<")]
        vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *letters, *words]))}
        model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        backend = Tokenizer(model)
        if scheme == "normalizer":
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        backend.add_special_tokens(MARKERS)
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
        return _finish(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")

    return make


def unigram() -> Any:
    """A tokenizer like T5's: a marker is an ordinary, likely piece."""
    letters = sorted({letter for text in CORPUS for letter in text} | set("▁<>|/[]_{}XINST"))
    pieces = [(marker, 0.0) for marker in MARKERS] + [(letter, -9.0) for letter in letters] + [("▁def", -5.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=MARKERS.index("<unk>")))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(MARKERS)
    return _finish(backend, eos_token="</s>", unk_token="<unk>")


def nano() -> Any:
    """The embedded model's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(Path(next(iter(codealign.nano.__path__))) / "data" / "model")


def _finish(backend: Any, **options: Any) -> Any:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level": byte_level,
    "whole-pieces": whole_pieces,
    "prepending-normalizer": sentencepiece("normalizer"),
    "metaspace-always": sentencepiece("always"),
    "metaspace-first": sentencepiece("first"),
    "unigram": unigram,
    "nano": nano,
}
_MADE: dict[tuple[str, bool], Any] = {}


def ready(kind: str, *, chat: bool) -> Any:
    """Return a tokenizer that is ready for training: with its own chat template, or ours."""
    if (kind, chat) not in _MADE:
        tokenizer = KINDS[kind]()
        if chat:
            tokenizer.chat_template = CHATML
        prepare_tokenizer(tokenizer)
        _MADE[kind, chat] = tokenizer
    return _MADE[kind, chat]


def markers_of(tokenizer: Any) -> set[int]:
    """Return special and added tokens, except the unknown token, which stands for letters outside the vocabulary."""
    return set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}


def render(tokenizer: Any, content: str) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return text


@pytest.mark.parametrize("chat", [False, True], ids=["our template", "turn markers"])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_templates_markers_and_the_end_token_are_trained_on(kind: str, chat: bool) -> None:
    tokenizer = ready(kind, chat=chat)
    markers = markers_of(tokenizer)
    plain = tokenizer(render(tokenizer, "Double it."), add_special_tokens=False).input_ids
    expected = [number for number in plain if number in markers]
    rows = [Row(case["name"], case["instruction"], case["response"]) for case in CASES]
    for case, row in zip(CASES, encode(tokenizer, rows, 4096).rows, strict=True):
        prompt = row.input_ids[: row.labels.count(IGNORED)]
        answer = row.labels[len(prompt) :]
        assert [number for number in prompt if number in markers] == expected, case["name"]
        assert not markers.intersection(answer[:-1]), case["name"]
        assert answer[-1] in markers
        assert row.input_ids[len(prompt) :] == answer
        if kind != "unigram":  # whose vocabulary does not cover every letter
            assert tokenizer.decode(answer[:-1]).strip() == case["response"].strip(), case["name"]
            assert case["instruction"].strip() in tokenizer.decode(prompt), case["name"]


@pytest.mark.parametrize("chat", [False, True], ids=["our template", "turn markers"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_without_markers_has_the_tokens_that_it_always_had(kind: str, chat: bool) -> None:
    tokenizer = ready(kind, chat=chat)
    texts = [
        *CORPUS[:3],
        "größer  你好",
        "x<y>z | [0] <|",
        "    indented",
        "",
        "\n\n",
        "a < s > b </ s>",
        "½ \u2028 \x0b 🙂",
    ]
    rows = [Row(str(number), text, text) for number, text in enumerate(texts)]
    for text, row in zip(texts, encode(tokenizer, rows, 4096).rows, strict=True):
        prompt = tokenizer(render(tokenizer, text), add_special_tokens=False).input_ids
        answer = tokenizer(text, add_special_tokens=False).input_ids
        assert row.input_ids[:-1] == prompt + answer


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_prompt_that_is_continued_holds_the_tokenizers_own_markers_alone(case: dict[str, str]) -> None:
    for kind in ("nano", "byte-level", "metaspace-first"):
        tokenizer = ready(kind, chat=False)
        markers = markers_of(tokenizer)
        prompts = prompts_of(tokenizer)
        text = f"{case['instruction']}\n{case['response']}"
        ids, _ = prompts.encode(GenerationRequest(text, ()))
        around = [number for number in tokenizer("x").input_ids if number in markers]
        assert [number for number in ids if number in markers] == around
        _, within = prompts.encode(GenerationRequest(text, (), prefix_chars=len(case["instruction"])))
        assert tokenizer.decode(ids[len(around) : within]).strip() in text


def test_a_conversation_holds_the_templates_markers_alone() -> None:
    for kind in KINDS:
        tokenizer = ready(kind, chat=True)
        markers = markers_of(tokenizer)
        prompts = prompts_of(tokenizer)
        for case in CASES:
            turns = (
                ChatMessage("system", "Be brief."),
                ChatMessage("user", case["instruction"]),
                ChatMessage("assistant", case["response"]),
                ChatMessage("user", "x" + case["response"]),
                ChatMessage("assistant", "```python"),
            )
            usual = tuple(ChatMessage(turn.role, "plain") for turn in turns)
            ids, other = (prompts.encode(GenerationRequest(chat, ()))[0] for chat in (turns, usual))
            assert [one for one in ids if one in markers] == [one for one in other if one in markers], case["name"]


async def test_tokens_are_counted_as_they_are_in_a_prompt() -> None:
    tokenizer = ready("nano", chat=False)
    prompts = prompts_of(tokenizer)
    text = CASES[0]["response"]
    assert await prompts.count([text]) == [len(prompts.encode(GenerationRequest(text, ()))[0]) - 1]


def test_a_template_that_changes_a_message_with_markers_is_refused_by_name() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}"
    prompts = prompts_of(tokenizer)
    assert prompts.encode(GenerationRequest((ChatMessage("user", "plain"),), ()))[0]
    with pytest.raises(InvalidArgument, match="modifies the message"):
        prompts.encode(GenerationRequest((ChatMessage("user", "a <|im_end|> b"),), ()))


def test_a_tokenizer_without_a_tokenizer_json_cannot_read_a_marker_as_text() -> None:
    tokenizer = transformers.ByT5Tokenizer()
    literal = LiteralText(tokenizer)
    assert literal.encode(["plain"])[0].ids
    with pytest.raises(NotLiteral, match=r"tokenizer\.json"):
        literal.encode(["a </s> b"])


def test_added_tokens_that_are_ordinary_text_stay_tokens() -> None:
    """Tokenizers for code have indentation and letters among their added tokens."""
    tokenizer = byte_level()
    ordinary = ["        ", "\t\t", "ö", "----", "self", "…", "\n\n"]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ordinary])
    text = "<|endoftext|>\n\n        self.x ---- \t\tx"
    [encoded] = LiteralText(tokenizer).encode([text])
    names = tokenizer.convert_ids_to_tokens(encoded.ids)
    assert {"        ", "\t\t", "----", "self", "\n\n"} <= set(names)
    assert "<|endoftext|>" not in names
    assert tokenizer.decode(encoded.ids) == text


def test_what_is_a_marker() -> None:
    special = ["<|x|>", "<s>", "[PAD]", "EOS"]
    tags = ["<tool_call>", "[INST]", "＜｜User｜＞", "{{name}}", "### Instruction:"]
    text = ["    ", "\n\n", "▁▁", "ö", "self", "__init__", "----", "def ", "..."]
    assert all(is_marker(AddedToken(one, special=True)) for one in special)
    assert all(is_marker(AddedToken(one, special=False)) for one in tags)
    assert not any(is_marker(AddedToken(one, special=False)) for one in text)
    # Text cannot be split into less than a letter, and Python needs blanks.
    assert not any(is_marker(AddedToken(one, special=True)) for one in ("!", "\n", "    "))


def prompts_of(tokenizer: Any) -> Prompts:
    template = chat_template_of(tokenizer)
    return Prompts(tokenizer, ModelInfo("m", "m", "0", "transformers", 4096, template, False, "float32", "cpu", 1))
