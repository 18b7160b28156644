"""The transformers engine returns what the model generates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from codealign.common.errors import InvalidArgument
from codealign.inference.engines.base import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerationRequest,
    Sample,
    Sampling,
)
from codealign.inference.engines.transformers.attention import NAME
from codealign.inference.engines.transformers.decoder import Decoder, share_prefixes
from codealign.inference.engines.transformers.engine import TransformersEngine
from codealign.inference.engines.transformers.linear import pack_linears, packing_works
from codealign.inference.engines.transformers.loading import LoadedModel, load_model
from codealign.inference.engines.transformers.options import EngineOptions

FEW_SHOTS = "### Instruction\nWrite a function that adds.\n### Response\ndef add(a, b):\n    return a + b\n\n"
PROMPTS = [
    "def add",
    FEW_SHOTS + "### Instruction\nReverse a text.\n",
    "größer 你好",
    FEW_SHOTS + "### Instruction\nPrint items.\n",
    "for item in items:",
    "### Response\n```python\n",
]


async def complete(
    engine: TransformersEngine, prompt: str, sampling: Sampling, seeds: tuple[int, ...] = (7,), **more: Any
) -> list[Completion]:
    """Return completions in the order of their attempts."""
    samples = tuple(Sample(attempt, seed) for attempt, seed in enumerate(seeds))
    request = GenerationRequest(prompt, samples, sampling, **more)
    found = [completion async for completion in engine.generate(request)]
    return sorted(found, key=lambda completion: completion.attempt)


def by_generate(loaded: LoadedModel, prompt: str, tokens: int) -> tuple[str, int]:
    """Return the greedy text and number of tokens from transformers' own generate."""
    inputs = loaded.tokenizer(prompt, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        output = loaded.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    ids = output[0, inputs["input_ids"].shape[1] :]
    return loaded.tokenizer.decode(ids, skip_special_tokens=True), len(ids)


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_greedy_text_is_the_one_of_generate(engine: TransformersEngine, loaded: LoadedModel, prompt: str) -> None:
    [completion] = await complete(engine, prompt, Sampling(max_tokens=40))
    assert (completion.text, completion.generated_tokens) == by_generate(loaded, prompt, 40)


async def test_a_mixed_batch_with_reused_prefixes_writes_the_same(
    engine: TransformersEngine, loaded: LoadedModel
) -> None:
    lengths = [10, 40, 25, 60, 5, 33]
    for _ in range(2):  # in the second pass every prompt is in the prefix cache
        batches = await asyncio.gather(
            *(
                complete(engine, prompt, Sampling(max_tokens=length), (1, 2, 3))
                for prompt, length in zip(PROMPTS, lengths, strict=True)
            )
        )
        for prompt, length, batch in zip(PROMPTS, lengths, batches, strict=True):
            assert [(one.text, one.generated_tokens) for one in batch] == [by_generate(loaded, prompt, length)] * 3


@pytest.mark.parametrize("samples", [1, 5])
async def test_rows_that_share_a_prefix_write_what_each_would_write_alone(
    engine: TransformersEngine, loaded: LoadedModel, samples: int
) -> None:
    prompts = [FEW_SHOTS + text for text in ("### Instruction\nReverse.\n", "### Instruction\nAdd.\n", "print(")]
    lengths = [20, 45, 33]
    for _ in range(2):  # with and without the prefix computed before
        batches = await asyncio.gather(
            *(
                complete(
                    engine, prompt, Sampling(max_tokens=length), tuple(range(samples)), prefix_chars=len(FEW_SHOTS)
                )
                for prompt, length in zip(prompts, lengths, strict=True)
            ),
            complete(engine, "def", Sampling(max_tokens=50)),  # shares nothing
        )
        for prompt, length, batch in zip([*prompts, "def"], [*lengths, 50], batches, strict=True):
            expected = by_generate(loaded, prompt, length)
            assert {(one.text, one.generated_tokens) for one in batch} == {expected}


async def test_rows_of_a_batch_read_their_common_prefix_in_one_place(
    loaded: LoadedModel, options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Decoder.decode
    seen = []

    def watched(self: Decoder, cache: Any, tokens: Any) -> Any:
        groups = cache.groups()
        seen.append((max(cache.lengths), [len(group.rows) for group in groups.groups] if groups else []))
        return decode(self, cache, tokens)

    monkeypatch.setattr(Decoder, "decode", watched)
    engine = TransformersEngine(loaded, replace(options, slots=4))
    try:
        await asyncio.gather(
            *(
                complete(engine, FEW_SHOTS + text, Sampling(max_tokens=12), prefix_chars=len(FEW_SHOTS))
                for text in ("a", "b = 1", "c")
            )
        )
    finally:
        await engine.close()
    prefix = len(loaded.tokenizer(FEW_SHOTS)["input_ids"])
    assert [3] in [groups for _, groups in seen]
    assert max(own for own, _ in seen) < prefix


def test_a_model_with_windows_keeps_the_attention_of_transformers(loaded: LoadedModel) -> None:
    assert loaded.model.config._attn_implementation == NAME
    config = transformers.Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, use_sliding_window=True, sliding_window=4, max_window_layers=1,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    assert not share_prefixes(model)
    assert model.config._attn_implementation == "sdpa"


async def test_several_workers_write_what_one_writes(loaded: LoadedModel, options: EngineOptions) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=20)
    texts = []
    for workers in (1, 3):
        engine = TransformersEngine(loaded, replace(options, slots=7, workers=workers))
        try:
            found = await asyncio.gather(*(complete(engine, prompt, sampling, (1, 2, 3)) for prompt in PROMPTS))
            assert engine.load() == replace(engine.load(), running=0, waiting=0, slots=7)
            assert engine.load().generated_tokens == sum(one.generated_tokens for batch in found for one in batch)
        finally:
            await engine.close()
        texts.append([[one.text for one in batch] for batch in found])
    assert texts[0] == texts[1]


def test_workers_divide_slots_and_memory() -> None:
    shares = EngineOptions(
        slots=5, workers=2, max_waiting=9, kv_cache_bytes=100, prefix_cache_bytes=60
    ).of_each_worker()
    assert [(each.slots, each.max_waiting, each.kv_cache_bytes, each.prefix_cache_bytes) for each in shares] == [
        (3, 5, 50, 30),
        (2, 4, 50, 30),
    ]
    assert len(EngineOptions(slots=2, workers=8).of_each_worker()) == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_packed_weights_compute_the_same(model_folder: Path, cache_folder: Path, dtype: str) -> None:
    torch_dtype = getattr(torch, dtype)
    if not packing_works(torch_dtype):
        pytest.skip("this PyTorch does not pack")
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch_dtype)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        plain = model(ids).logits
        assert pack_linears(model) == 2 * 7 + 1
        packed = model(ids).logits
    assert torch.allclose(plain, packed, atol=1e-4 if dtype == "float32" else 0.5)


async def test_sliding_windows_are_kept(tmp_path: Path, cache_folder: Path, model_folder: Path) -> None:
    config = transformers.Qwen2Config(
        vocab_size=340,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        use_sliding_window=True,
        sliding_window=12,
        layer_types=["full_attention", "sliding_attention"],
        initializer_range=0.25,
    )
    torch.manual_seed(1)
    model = transformers.Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [0]
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path)
    options = EngineOptions(slots=2, prefill_chunk=16, kv_cache_bytes=2**26)
    loaded = load_model(str(tmp_path), dtype="float64", cache_folder=cache_folder, options=options)
    engine = TransformersEngine(loaded, options)
    try:
        both = await asyncio.gather(*(complete(engine, prompt, Sampling(max_tokens=30)) for prompt in PROMPTS[:2]))
    finally:
        await engine.close()
    assert [one[0].text for one in both] == [by_generate(loaded, prompt, 30)[0] for prompt in PROMPTS[:2]]


SAMPLINGS = [
    Sampling(temperature=1.0, max_tokens=30),
    Sampling(temperature=0.8, top_p=0.9, max_tokens=30),
    Sampling(temperature=1.3, top_k=5, top_p=0.95, max_tokens=30),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["plain", "top_p", "top_k"])
async def test_a_draw_does_not_depend_on_the_batch(engine: TransformersEngine, sampling: Sampling) -> None:
    alone = [(await complete(engine, PROMPTS[0], sampling, (seed,)))[0].text for seed in (5, 6, 7)]
    crowd = [complete(engine, prompt, other, (9, 10)) for prompt in PROMPTS for other in SAMPLINGS]
    together, *_ = await asyncio.gather(complete(engine, PROMPTS[0], sampling, (5, 6, 7)), *crowd)
    assert [one.text for one in together] == alone
    assert len(set(alone)) == 3


async def test_equal_seeds_draw_equally_whatever_the_attempt(engine: TransformersEngine) -> None:
    first, second, other = await complete(engine, "def", SAMPLINGS[0], (3, 3, 2**64 - 1))
    assert first.text == second.text != other.text


async def text_of(engine: TransformersEngine, prompt: str) -> str:
    return (await complete(engine, prompt, Sampling(max_tokens=40)))[0].text


async def test_text_ends_before_a_stop_string_that_spans_tokens(
    engine: TransformersEngine, loaded: LoadedModel
) -> None:
    whole = await text_of(engine, PROMPTS[0])
    # In the middle, longer than any single token of this tokenizer.
    start = 8
    stop = whole[start : start + 12]
    assert len(loaded.tokenizer(stop)["input_ids"]) > 1
    [completion] = await complete(engine, PROMPTS[0], Sampling(max_tokens=40, stop=("never", stop)))
    assert completion.text == whole[: whole.index(stop)]
    assert (completion.finish_reason, completion.stop_string) == (FinishReason.STOP_STRING, stop)
    assert 0 < completion.generated_tokens < 40


async def test_the_earliest_of_several_stop_strings_counts(engine: TransformersEngine) -> None:
    whole = await text_of(engine, PROMPTS[0])
    late, early = whole[15:18], whole[3:6]
    [completion] = await complete(engine, PROMPTS[0], Sampling(max_tokens=40, stop=(late, early)))
    assert completion.text == whole[: min(whole.index(early), whole.index(late))]


async def test_the_end_token_ends_a_completion_and_is_counted(
    model_folder: Path, loaded: LoadedModel, engine: TransformersEngine
) -> None:
    full = loaded.tokenizer(PROMPTS[0], return_tensors="pt")
    full.pop("token_type_ids", None)
    ids = loaded.model.generate(**full, max_new_tokens=20, do_sample=False)[0, full["input_ids"].shape[1] :].tolist()
    end = next(at for at in range(3, 20) if ids[at] not in ids[:at])
    ended = TransformersEngine(replace(loaded, end_tokens=frozenset({0, ids[end]})), EngineOptions(slots=1))
    try:
        [completion] = await complete(ended, PROMPTS[0], Sampling(max_tokens=20))
    finally:
        await ended.close()
    assert completion.finish_reason is FinishReason.END_TOKEN
    assert completion.generated_tokens == end + 1
    assert completion.text == loaded.tokenizer.decode(ids[:end])


async def test_every_end_token_of_the_generation_config_is_known(
    tmp_path: Path, cache_folder: Path, make_model: Callable[..., Path], options: EngineOptions
) -> None:
    folder = make_model(tmp_path / "two-ends", end_tokens=[0, 17])
    assert load_model(str(folder), cache_folder=cache_folder, options=options).end_tokens == {0, 17}


async def test_a_cut_text_says_length(engine: TransformersEngine) -> None:
    [completion] = await complete(engine, "def", Sampling(max_tokens=3))
    assert (completion.finish_reason, completion.generated_tokens) == (FinishReason.LENGTH, 3)


async def test_without_max_tokens_the_context_is_the_limit(engine: TransformersEngine, loaded: LoadedModel) -> None:
    [completion] = await complete(engine, FEW_SHOTS, Sampling(temperature=1.5))
    if completion.finish_reason is FinishReason.LENGTH:
        assert completion.prompt_tokens + completion.generated_tokens == engine.model.context_length
    else:
        assert completion.finish_reason is FinishReason.END_TOKEN


async def test_a_prompt_beyond_the_context_is_refused_with_numbers(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidArgument, match=r"prompt: has \d{3,} tokens, but the model's context has 256"):
        await complete(engine, "def add(a, b): " * 100, Sampling())


async def test_only_what_no_earlier_prompt_shared_is_computed(engine: TransformersEngine, loaded: LoadedModel) -> None:
    prefix_tokens = len(loaded.tokenizer(FEW_SHOTS)["input_ids"])
    counts = []
    for prompt in (PROMPTS[1], PROMPTS[3], PROMPTS[3]):
        first, second = await complete(engine, prompt, Sampling(max_tokens=2), (1, 2), prefix_chars=len(FEW_SHOTS))
        assert first.prompt_tokens == second.prompt_tokens == second.cached_prompt_tokens
        assert first.cached_prompt_tokens is not None
        counts.append(first.cached_prompt_tokens)
    assert counts[0] == 0
    assert prefix_tokens - 1 <= counts[1] <= counts[2] < len(loaded.tokenizer(PROMPTS[3])["input_ids"])
    load = engine.load()
    assert load.cached_prompt_tokens < load.prompt_tokens
    assert load.generated_tokens == 12


async def test_an_unannounced_prefix_is_found_too(engine: TransformersEngine) -> None:
    await complete(engine, PROMPTS[1], Sampling(max_tokens=1))
    [completion] = await complete(engine, PROMPTS[3], Sampling(max_tokens=1))
    assert (completion.cached_prompt_tokens or 0) > 20


async def test_the_prefix_cache_stays_within_its_bytes(loaded: LoadedModel) -> None:
    bound = 60 * loaded.bytes_per_token
    engine = TransformersEngine(loaded, EngineOptions(slots=2, prefix_cache_bytes=bound))
    try:
        for number in range(6):
            await complete(engine, f"{number} is a number. " * 3, Sampling(max_tokens=1))
            assert engine._workers[0]._prefixes.size_bytes <= bound
    finally:
        await engine.close()


async def test_a_conversation_goes_through_the_template(engine: TransformersEngine) -> None:
    message = (ChatMessage("user", "def add"),)
    request = GenerationRequest(message, (Sample(0, 0),), Sampling(max_tokens=12))
    [chat] = [completion async for completion in engine.generate(request)]
    [plain] = await complete(engine, "<user>def add\n<assistant>", Sampling(max_tokens=12))
    assert chat.text == plain.text


async def test_the_last_words_of_the_assistant_are_continued(engine: TransformersEngine) -> None:
    messages = (ChatMessage("user", "def add"), ChatMessage("assistant", "return a"))
    [chat] = [
        completion
        async for completion in engine.generate(GenerationRequest(messages, (Sample(0, 0),), Sampling(max_tokens=12)))
    ]
    [plain] = await complete(engine, "<user>def add\n<assistant>return a", Sampling(max_tokens=12))
    assert chat.text == plain.text


async def test_a_conversation_without_a_template_is_refused(loaded: LoadedModel) -> None:
    engine = TransformersEngine(replace(loaded, info=replace(loaded.info, chat_template="")), EngineOptions(slots=1))
    try:
        with pytest.raises(InvalidArgument, match="chat: model tiny has no chat template"):
            await anext(engine.generate(GenerationRequest((ChatMessage("user", "hi"),), (Sample(0, 0),))))
    finally:
        await engine.close()


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.5, 0), (0.95, 0), (1.0, 3), (0.9, 50)])
def test_cuts_are_those_of_transformers(top_p: float, top_k: int) -> None:
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    from codealign.inference.engines.transformers.sampling import _distribution

    torch.manual_seed(3)
    logits = torch.cat([torch.randn(3, 9000, dtype=torch.float64) * scale for scale in (0.1, 2.0, 8.0)])
    ours = _distribution(logits, 0.7, top_p, top_k)
    theirs = logits / 0.7
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1:
        theirs = TopPLogitsWarper(top_p)(None, theirs)
    expected = theirs.softmax(-1)
    assert torch.allclose(ours / ours.sum(-1, keepdim=True), expected, atol=1e-12)


def test_draws_follow_the_distribution() -> None:
    from codealign.inference.engines.transformers.sampling import choose

    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0]]).expand(4000, -1)
    drawn = choose(logits, [Sampling(temperature=1.0)] * 4000, list(range(4000)), [0] * 4000)
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 4000
    assert torch.allclose(shares, logits[0].softmax(-1), atol=0.03)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.9)])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_choose_no_token(sampling: Sampling, broken: float) -> None:
    from codealign.inference.engines.transformers.sampling import choose

    logits = torch.zeros(2, 8)
    assert len(choose(logits, [sampling] * 2, [1, 2], [0, 0])) == 2
    logits[1, 3] = broken
    with pytest.raises(ArithmeticError, match="CODEALIGN_INFERENCE_DTYPE"):
        choose(logits, [sampling] * 2, [1, 2], [0, 0])
    logits[1, 3] = float("-inf")  # a token that the model excludes
    assert len(choose(logits, [sampling] * 2, [1, 2], [0, 0])) == 2


@pytest.mark.parametrize("temperature", [1e-7, 1e-37, 1e-300])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tiny_temperature_is_nearly_greedy_and_ends_nothing(temperature: float, top_p: float, dtype: Any) -> None:
    from codealign.inference.engines.transformers.sampling import choose

    logits = torch.tensor([[-40.0, 90.0, 80.0, -90.0]], dtype=dtype)
    for largest in (90.0, 0.0, -30.0):
        shifted = logits - 90.0 + largest
        assert choose(shifted, [Sampling(temperature=temperature, top_p=top_p)], [1], [0]) == [1]
