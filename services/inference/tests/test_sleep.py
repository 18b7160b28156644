"""Unloading before a training puts engines to sleep that can, and loading wakes them up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import transformers

from codealign.common.errors import FailedPrecondition, Internal, NotFound, Unavailable
from codealign.inference.engines.base import GenerationRequest, Load, ModelInfo, Sample
from codealign.inference.engines.vllm.engine import RunningVllm, VllmEngine
from codealign.inference.registry import ModelRegistry
from codealign.inference.settings import InferenceSettings
from codealign.inference.weights import DoesNotFit

from .conftest import CORPUS


class Sleepy:
    """An engine that notes what happens to it."""

    def __init__(
        self,
        name: str,
        source: str,
        base: str = "",
        can_sleep: bool = True,
        breaks: Sequence[str] = (),
        revision: str = "1" * 64,
    ):
        self.model = ModelInfo(name, source, revision, "vllm", 1024, "", False, "bfloat16", "cuda:0", 1, base=base)
        self.fault = ""
        self.can_sleep = can_sleep
        self.breaks = breaks
        self.did: list[str] = []

    async def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.breaks:
            raise RuntimeError("CUDA error: out of memory")

    async def sleep(self) -> None:
        await self._do("sleep")

    async def wake_up(self) -> None:
        await self._do("wake")

    async def close(self) -> None:
        await self._do("close")

    def load(self) -> Load:
        return Load(slots=4, prompt_tokens=10, generated_tokens=7)


class Opener:
    """Opens the engines that it was given, in this order."""

    only_one = ""

    def __init__(self, *engines: Sleepy | Exception) -> None:
        self.left = list(engines)

    def key_of(self, source: str) -> str:
        return source

    def name_of(self, source: str) -> str:
        return source

    async def open(self, source: str, name: str, expected_revision: str) -> Any:
        engine = self.left.pop(0)
        if isinstance(engine, Exception):
            raise engine
        return engine


async def test_a_model_that_sleeps_counts_as_not_loaded_and_loading_wakes_it_up() -> None:
    engine = Sleepy("m", "s")
    models = ModelRegistry(Opener(engine))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    assert models.models == []
    with pytest.raises(NotFound):
        models.find("m", "model")
    with pytest.raises(NotFound):
        await models.unload("m")
    assert await models.open("s", name="m") == engine.model
    assert engine.did == ["sleep", "wake"]
    await models.unload("m")
    assert engine.did == ["sleep", "wake", "close"]


async def test_an_engine_that_cannot_sleep_is_closed_and_its_adapters_with_it() -> None:
    base, adapter = Sleepy("m", "s", can_sleep=False), Sleepy("a", "t", base="m")
    models = ModelRegistry(Opener(base, adapter))
    await models.open("s", name="m")
    await models.open("t", name="a")
    assert models.load().slots == 4, "an adapter decodes in its base's slots"
    await models.unload("m", may_sleep=True)
    assert (base.did, adapter.did, models.models) == (["close"], ["close"], [])


async def test_the_totals_of_tokens_never_shrink() -> None:
    engine, other = Sleepy("m", "s"), Sleepy("n", "t")
    models = ModelRegistry(Opener(engine, other))
    await models.open("s", name="m")
    await models.open("t", name="n")
    await models.unload("n")
    assert models.load() == Load(slots=4, prompt_tokens=20, generated_tokens=14)
    await models.unload("m", may_sleep=True)
    assert models.load() == Load(prompt_tokens=20, generated_tokens=14)
    await models.open("s", name="m")
    assert models.load() == Load(slots=4, prompt_tokens=20, generated_tokens=14)
    await models.close()
    assert models.load() == Load(prompt_tokens=20, generated_tokens=14)


async def test_an_adapter_that_cannot_be_closed_does_not_keep_its_base_open() -> None:
    base, adapter = Sleepy("m", "s"), Sleepy("a", "t", base="m", breaks=["close"])
    models = ModelRegistry(Opener(base, adapter, Sleepy("m", "s")))
    await models.open("s", name="m")
    await models.open("t", name="a")
    with pytest.raises(Internal, match=r"a \(RuntimeError: CUDA error"):
        await models.unload("m")
    assert (base.did, adapter.did, models.models) == (["close"], ["close"], [])
    await models.open("s", name="m")


async def test_an_adapter_whose_base_was_unloaded_while_it_was_loaded_is_not_served() -> None:
    base, adapter = Sleepy("m", "s"), Sleepy("a", "t", base="m")
    opener = Opener(base, adapter)
    models = ModelRegistry(opener)
    await models.open("s", name="m")
    unloading: list[asyncio.Task[None]] = []

    async def opened_late(source: str, name: str, expected_revision: str) -> Any:
        unloading.append(asyncio.create_task(models.unload("m")))
        await asyncio.sleep(0.05)
        return adapter

    opener.open = opened_late  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="m was unloaded meanwhile: load it again, then a"):
        await models.open("t", name="a")
    await unloading[0]
    assert models.models == []
    assert adapter.did == ["close"]


async def test_without_a_wish_to_sleep_an_engine_is_closed() -> None:
    engine = Sleepy("m", "s")
    models = ModelRegistry(Opener(engine))
    await models.open("s", name="m")
    await models.unload("m")
    assert engine.did == ["close"]


@pytest.mark.parametrize(("breaks", "did"), [("sleep", ["sleep", "close"]), ("wake", ["sleep", "wake", "close"])])
async def test_an_engine_that_fails_to_sleep_or_to_wake_up_is_closed_and_the_model_loaded_anew(
    breaks: str, did: list[str]
) -> None:
    first = Sleepy("m", "s", breaks=[breaks])
    second: Any = Sleepy("m", "s")
    models = ModelRegistry(Opener(first, second))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    await models.open("s", name="m")
    assert first.did == did
    assert models.engines == [second]


async def test_a_name_with_another_source_does_not_wake_what_sleeps_under_it() -> None:
    first = Sleepy("m", "s")
    second: Any = Sleepy("m", "other")
    models = ModelRegistry(Opener(first, second))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    await models.open("other", name="m")
    assert first.did == ["sleep", "close"]
    assert models.engines == [second]


async def test_a_source_that_has_changed_is_loaded_anew_where_its_new_revision_is_expected() -> None:
    first = Sleepy("m", "s")
    second: Any = Sleepy("m", "s", revision="2" * 64)
    models = ModelRegistry(Opener(first, second))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    assert await models.open("s", name="m", expected_revision="2" * 64) == second.model
    assert first.did == ["sleep", "close"]
    await models.unload("m", may_sleep=True)
    assert await models.open("s", name="m", expected_revision="2" * 64) == second.model
    assert second.did == ["sleep", "wake"]


async def test_what_sleeps_gives_way_to_a_model_that_does_not_fit_beside_it() -> None:
    first, second = Sleepy("m", "s"), Sleepy("n", "t")
    models = ModelRegistry(Opener(first, DoesNotFit("too little memory"), second))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    await models.open("t", name="n")
    assert first.did == ["sleep", "close"]
    await models.close()
    assert second.did == ["close"]


async def test_a_server_that_stops_ends_what_sleeps() -> None:
    engine = Sleepy("m", "s")
    models = ModelRegistry(Opener(engine))
    await models.open("s", name="m")
    await models.unload("m", may_sleep=True)
    await models.close()
    assert engine.did == ["sleep", "close"]


class FakeLlm:
    """What AsyncLLM offers for sleeping."""

    errored = False

    def __init__(self) -> None:
        self.did: list[Any] = []

    async def sleep(self, level: int) -> None:
        self.did.append(("sleep", level))

    async def wake_up(self, tags: list[str] | None = None) -> None:
        self.did.append(("wake", tags))

    async def collective_rpc(self, method: str) -> None:
        self.did.append(method)

    async def remove_lora(self, number: int) -> None:
        self.did.append(("remove", number))

    def shutdown(self) -> None:
        self.did.append("shutdown")


class FakeAdapter:
    lora_int_id = 7


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize(
    ("level", "wakes"),
    [(1, [("wake", None)]), (2, [("wake", ["weights"]), "reload_weights", ("wake", ["kv_cache"])])],
)
async def test_vllm_sleeps_and_reads_its_weights_again_if_they_are_gone(
    tokenizer: Any, level: int, wakes: list[Any]
) -> None:
    llm = FakeLlm()
    info = ModelInfo("m", "s", "1" * 64, "vllm", 1024, "", False, "bfloat16", "cuda:0", 1)
    running = RunningVllm(llm, tokenizer, frozenset({0}), 4, info, sleep_level=level)
    base = VllmEngine(running, 8)
    adapter = VllmEngine(running, 8, host=base, adapter=FakeAdapter())
    base.adapters["m"] = adapter
    assert (base.can_sleep, adapter.can_sleep, base.is_open) == (True, False, True)
    await base.sleep()
    assert llm.did == [("remove", 7), ("sleep", level)]
    assert (base.adapters, base.is_open, adapter.is_open) == ({}, False, False)
    request = GenerationRequest("def add", (Sample(0, 0),))
    with pytest.raises(Unavailable, match="stopping"):
        await anext(base.generate(request))
    llm.did.clear()
    await base.wake_up()
    assert llm.did == wakes
    assert base.is_open
    await base.close()
    assert llm.did[-1] == "shutdown"


@pytest.mark.parametrize(("level", "wakes"), [(1, True), (2, False)])
async def test_files_that_have_changed_are_not_read_under_the_old_revision(
    tokenizer: Any, level: int, wakes: bool
) -> None:
    llm = FakeLlm()
    info = ModelInfo("m", "s", "1" * 64, "vllm", 1024, "", False, "bfloat16", "cuda:0", 1)
    running = RunningVllm(llm, tokenizer, frozenset({0}), 4, info, level, lambda: "2" * 64)
    engine = VllmEngine(running, 8)
    await engine.sleep()
    llm.did.clear()
    if wakes:
        await engine.wake_up()
        assert llm.did == [("wake", None)], "the weights of before are in main memory"
        return
    with pytest.raises(FailedPrecondition, match=f"files of s have changed.* revision {'2' * 64}, not {'1' * 64}"):
        await engine.wake_up()
    assert (llm.did, engine.is_open) == ([], False)


def test_level_2_with_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="use level 1 with vllm_max_loras"):
        InferenceSettings(vllm_sleep_level=2, vllm_max_loras=1)
