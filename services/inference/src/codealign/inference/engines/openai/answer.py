"""Convert an endpoint's answer to a completion.

A refusal by the model or the endpoint's filter becomes a completion with its own finish reason, so that it costs one
item and not the run. An unreadable answer is the endpoint's fault and becomes an error that shows the answer.
"""

from __future__ import annotations

import json
import time
from typing import Any

from codealign.common.errors import CodeAlignError, FailedPrecondition, Internal
from codealign.common.text import encodable
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Sample
from codealign.inference.engines.openai.endpoint import Filtered, Json, filter_message
from codealign.inference.engines.stops import first_stop

_SHOWN_CHARS = 200
_TOLD_BY = ("stop_reason", "matched_stop")
"""Fields beside `finish_reason` that report the stop string: vLLM's and SGLang's."""
_WORDS = {
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALL,
    "function_call": FinishReason.TOOL_CALL,
    # text-generation-inference
    "eos_token": FinishReason.END_TOKEN,
    "stop_sequence": FinishReason.STOP_STRING,
}


def read_completion(request: GenerationRequest, sample: Sample, answer: Json, arrival: float) -> Completion:
    """Read the completion from an answer.

    Raises:
        FailedPrecondition: The answer does not follow OpenAI's protocol.
        Internal: The answer cannot be read; a retry may succeed.
        Filtered: The endpoint reports a filter error with a success status.
    """
    choice = _choice(answer)
    message = choice.get("message")
    content = message if isinstance(message, dict) else choice
    text = content.get("content") if content is message else content.get("text")
    if refusal := content.get("refusal"):
        reason, stop_string, text, detail = FinishReason.CONTENT_FILTER, "", text or "", f"refusal: {_shown(refusal)}"
    else:
        if text is None and not _ends_without_text(choice, content):
            raise Internal(f"the endpoint's completion has no text: {_shown(choice)}")
        if not isinstance(text, str | None):
            raise Internal(f"the endpoint's completion has a text that is not a string: {_shown(choice)}")
        reason, stop_string, text, detail = _end(request.sampling.stop, choice, text or "")
    usage = _object(answer.get("usage"))
    return Completion(
        attempt=sample.attempt,
        seed=sample.seed,
        text=encodable(text),
        finish_reason=reason,
        stop_string=stop_string,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_prompt_tokens=_known(_object(usage.get("prompt_tokens_details")).get("cached_tokens")),
        generated_tokens=_count(usage.get("completion_tokens")),
        seconds=time.perf_counter() - arrival,
        detail=encodable(detail),
    )


def refused(sample: Sample, message: str, arrival: float) -> Completion:
    """Return the completion of a sample whose request the endpoint's filter rejected."""
    seconds = time.perf_counter() - arrival
    reason = FinishReason.CONTENT_FILTER
    return Completion(sample.attempt, sample.seed, "", reason, "", 0, 0, 0, seconds, detail=message)


def _choice(answer: Json) -> Json:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        if error := choices[0].get("error"):
            raise _told_error(error)
        return choices[0]
    if error := answer.get("error"):
        raise _told_error(error)
    if choices == []:
        raise Internal(f"the endpoint's answer has no choice: {_shown(answer)}")
    raise FailedPrecondition(
        f"the endpoint's answer does not follow OpenAI's protocol: {_shown(answer)}; check the base URL"
    )


def _told_error(error: Any) -> CodeAlignError | Filtered:
    if message := filter_message({"error": error}):
        return Filtered(message)
    return Internal(f"the endpoint returned an error: {_shown(error)}")


def _ends_without_text(choice: Json, content: Json) -> bool:
    """Return whether the text may be missing: null, or absent because of a refusal or a tool call."""
    return "text" in content or "content" in content or choice.get("finish_reason") in _WORDS


def _end(stop: tuple[str, ...], choice: Json, text: str) -> tuple[FinishReason, str, str, str]:
    """Return the finish reason, the stop string (empty: not reported), the text without it, and a detail.

    The protocol uses "stop" for both end tokens and stop strings. Some endpoints distinguish them in an extra field;
    without it, a request with stop strings is assumed to have reached one of them.
    """
    if found := first_stop(text, stop):  # the endpoint keeps stop strings in the text, or used only the first few
        at, reached = found
        return FinishReason.STOP_STRING, reached, text[:at], ""
    word = choice.get("finish_reason")
    if word == "stop":
        return *_stopped(stop, choice), text, ""
    if not isinstance(word, str) or word not in _WORDS:
        raise Internal(f"the endpoint returned an unknown finish_reason: {_shown(word)}")
    reason = _WORDS[word]
    if reason in (FinishReason.CONTENT_FILTER, FinishReason.TOOL_CALL):
        return reason, "", text, f"finish_reason {word}"
    if reason is FinishReason.STOP_STRING:
        return *_stopped(stop, choice), text, ""
    return reason, "", text, ""


def _stopped(stop: tuple[str, ...], choice: Json) -> tuple[FinishReason, str]:
    told = [choice[field] for field in _TOLD_BY if field in choice]
    if not told:
        return (FinishReason.STOP_STRING if stop else FinishReason.END_TOKEN), ""
    if isinstance(told[0], str) and told[0] in stop:
        return FinishReason.STOP_STRING, told[0]
    return FinishReason.END_TOKEN, ""


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    """Return a number of tokens, or 0 for what cannot be one."""
    return _known(value) or 0


def _known(value: Any) -> int | None:
    """Return a number of tokens, or None for what cannot be one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _shown(value: Any) -> str:
    """Return a value as JSON, truncated for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
