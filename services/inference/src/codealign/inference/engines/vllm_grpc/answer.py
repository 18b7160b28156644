"""Convert an answer of vLLM's gRPC server to a completion, after checking that it can be one.

The checks find servers that are not what they seem: other token ids than their text, a shorter limit than requested, an
end token of another model. Such an answer is the server's fault, never a sample.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from vllm_grpc import vllm_pb2 as pb

from codealign.common.errors import Internal, Unavailable
from codealign.inference.engines.base import Completion, FinishReason, GenerationRequest, Sample
from codealign.inference.engines.stops import first_stop
from codealign.inference.engines.transformers.continuation import Detokenize

# Tokenizers of the SentencePiece family write a leading space according to what came before.
_CONTEXT_TOKENS = 6
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must agree with."""

    request: GenerationRequest
    prompt_ids: Sequence[int]
    limit: int
    """Maximum number of new tokens."""
    end_tokens: frozenset[int]
    vocabulary: int
    """Token ids are below it."""
    text_of: Detokenize
    server: str
    """Address, for messages."""


def read_completion(expected: Expected, sample: Sample, answer: pb.GenerateResponse, arrival: float) -> Completion:
    """Read the completion from an answer.

    Raises:
        Internal: The answer contradicts itself or the request.
        Unavailable: The server stopped the request before its end.
    """
    _check_prompt(expected, answer)
    output = answer.outputs
    if not answer.HasField("outputs") or not output.HasField("finish_info"):
        raise _wrong(expected, "an answer without a finished completion")
    reason = output.finish_info.finish_reason
    if reason == pb.FinishInfo.ABORTED:
        raise Unavailable(f"vLLM's server at {expected.server} stopped the request before its end: retry it")
    ids = list(output.token_ids)
    _check_ids(expected, output, ids)
    finish, stop_string = _end(expected, output, ids)
    if finish is FinishReason.END_TOKEN and ids[-1] not in expected.end_tokens:
        raise _wrong(expected, f"a completion that ended with token {ids[-1]}, which is no end token of the tokenizer")
    _check_text(expected, output.text, ids[:-1] if finish is FinishReason.END_TOKEN else ids)
    text = output.text
    if found := first_stop(text, expected.request.sampling.stop):
        # If one step produces several stop strings, vLLM takes the first of its list, not of the text.
        at, stop_string = found
        text, finish = text[:at], FinishReason.STOP_STRING
    return Completion(
        attempt=sample.attempt,
        seed=sample.seed,
        text=text,
        finish_reason=finish,
        stop_string=stop_string,
        prompt_tokens=len(expected.prompt_ids),
        cached_prompt_tokens=None,
        generated_tokens=len(ids),
        seconds=time.perf_counter() - arrival,
    )


def _check_prompt(expected: Expected, answer: pb.GenerateResponse) -> None:
    counted, sent = answer.prompt_info.num_prompt_tokens, len(expected.prompt_ids)
    if answer.HasField("prompt_info") and counted != sent:
        raise _wrong(expected, f"a completion of a prompt with {counted} tokens, but {sent} were sent")


def _check_ids(expected: Expected, output: pb.SequenceOutput, ids: Sequence[int]) -> None:
    counted = output.finish_info.num_output_tokens
    if not ids or counted != len(ids):
        raise _wrong(expected, f"{len(ids)} token ids, but it counts {counted}")
    if len(ids) > expected.limit:
        raise _wrong(expected, f"{len(ids)} tokens, but at most {expected.limit} were requested")
    if (largest := max(ids)) >= expected.vocabulary:
        raise _wrong(expected, f"token id {largest}, but the tokenizer has {expected.vocabulary} tokens")


def _end(expected: Expected, output: pb.SequenceOutput, ids: Sequence[int]) -> tuple[FinishReason, str]:
    info, stop = output.finish_info, expected.request.sampling.stop
    if info.finish_reason == pb.FinishInfo.LENGTH:
        if len(ids) < expected.limit:
            raise _wrong(
                expected,
                f"a completion that was cut off after {len(ids)} tokens, but {expected.limit} were requested and fit: "
                "is its context shorter than it said?",
            )
        return FinishReason.LENGTH, ""
    if info.finish_reason != pb.FinishInfo.STOP:
        raise _wrong(expected, "a completion that is not finished")
    if info.WhichOneof("stop_reason") != "stop_string":
        return FinishReason.END_TOKEN, ""
    if info.stop_string not in stop:
        raise _wrong(expected, f"a completion that ended at {info.stop_string!r}, which was not requested")
    return FinishReason.STOP_STRING, info.stop_string


def _check_text(expected: Expected, text: str, ids: Sequence[int]) -> None:
    """Compare the text with that of the token ids.

    White space and damaged characters are left out, since detokenizers differ in them; another model's ids differ in
    everything. The server's text ends before the stop string, that of the ids does not.
    """
    context = tuple(expected.prompt_ids[-_CONTEXT_TOKENS:])
    before, after = expected.text_of(context), expected.text_of((*context, *ids))
    own = after[len(before) :] if after.startswith(before) else expected.text_of(tuple(ids))
    if _bare(_before_stop(expected, own)) != _bare(_before_stop(expected, text)):
        raise _wrong(
            expected,
            f"text that is not the text of its token ids under this tokenizer ({text[:60]!r} and {own[:60]!r})",
        )


def _before_stop(expected: Expected, text: str) -> str:
    found = first_stop(text, expected.request.sampling.stop)
    return text[: found[0]] if found else text


def _bare(text: str) -> str:
    return "".join(text.replace(_INCOMPLETE, "").split())


def _wrong(expected: Expected, what: str) -> Internal:
    return Internal(
        f"vLLM's server at {expected.server} returned {what}. If it persists, the server or its model is not what was "
        "configured: check CODEALIGN_INFERENCE_VLLM_GRPC_ADDRESS and CODEALIGN_INFERENCE_VLLM_GRPC_TOKENIZER"
    )
