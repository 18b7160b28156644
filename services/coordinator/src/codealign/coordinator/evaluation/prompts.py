"""Prompts of an evaluation, in two styles.

"base": plain completion, as in EvalPlus for base models. The model continues HumanEval's prompt (a signature and a
docstring) with a body, and MBPP's (a docstring with the task and an assertion) with a whole program.

"tuned": an instruction with HumanEval's prompt in a code block (MBPP: the description, then its assertion). The last
message is the assistant's and opens a Python fence, which the model continues. Some models open another fence, at once
or after a few words; the program is then the block that defines the wanted function.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass

from codealign.api.inference.v1 import inference_pb2 as inf
from codealign.common.foreign_python import without_warnings
from codealign.coordinator.evaluation.problems import Problem
from codealign.coordinator.reading import fences
from codealign.coordinator.reading.python_code import compiles

BASE, TUNED = "base", "tuned"
STYLES = (BASE, TUNED)

BODY_STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(", "\n```")
"""End of a function body: module-level code follows."""
PROGRAM_STOP = ('\n"""', "\nassert", "\nif __name__", "\nprint(", "\n```")
"""End of a program: the next task's docstring, tests, or uses of the program."""
FENCE_STOP = ("\n```\n\n",)
"""A closing fence and a blank line. A fence alone is not enough: a model that starts with prose opens another fence,
which code follows without a blank line."""

_BEGUN = "```python\n"
_COMPLETE = """\
Complete this Python function so that it does what its docstring says. Answer with the whole function, and with \
whatever it needs, in one code block.

```python
{prompt}
```"""
_WRITE = """\
{description}

Answer with Python code in one code block. It must satisfy this assertion:

```python
{assertion}
```"""


@dataclass(frozen=True)
class Question:
    """A prompt: a text to continue, or a conversation whose last message the model continues."""

    text: str
    messages: tuple[tuple[str, str], ...]
    """(role, content)."""
    stop: tuple[str, ...]

    @property
    def written(self) -> str:
        """Prompt as stored in a record: the text, or the messages as JSON."""
        if not self.messages:
            return self.text
        return json.dumps([{"role": role, "content": content} for role, content in self.messages])

    def put_into(self, request: inf.GenerateRequest) -> None:
        """Set the request's input and its stop strings."""
        request.sampling.stop.extend(self.stop)
        if self.messages:
            turns = [inf.ChatMessage(role=role, content=content) for role, content in self.messages]
            request.chat.messages.extend(turns)
        else:
            request.prompt = self.text


def ask(problem: Problem, style: str) -> Question:
    """Return the prompt of a problem in one of `STYLES`."""
    begun = _begins_function(problem)
    if style == BASE:
        return Question(f"{problem.prompt.strip()}\n", (), BODY_STOP if begun else PROGRAM_STOP)
    if begun:
        instruction = _COMPLETE.format(prompt=problem.prompt.strip())
    else:
        description, assertion = _parts(problem.prompt)
        instruction = _WRITE.format(description=description, assertion=assertion) if assertion else description
    return Question("", (("user", instruction), ("assistant", _BEGUN)), FENCE_STOP)


def answered(problem: Problem, style: str, completion: str) -> str:
    """Return the program in a completion, as written by the model."""
    if style == BASE:
        return f"{problem.prompt.strip()}\n{completion}"
    return _program(completion, problem.entry_point)


def _program(completion: str, entry_point: str) -> str:
    """Extract the program from an answer to a prompt that ends with an opening fence.

    Takes the first block that defines the wanted function, else the first that compiles, else the first.
    """
    begun = _contents(_BEGUN + completion)
    # The first fence may close ours or open the model's own; the second case is read without our fence.
    own = _contents(completion)
    name = re.escape(entry_point)
    definition = re.compile(rf"^(?:(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|{name}[ \t]*[:=])", re.MULTILINE)
    defining = [content for content in (*begun, *own) if definition.search(content)]
    sound = [content for content in begun if compiles(content)]
    return next(iter([*defining, *sound, *begun]), "")


def _contents(markdown: str) -> list[str]:
    kinds = (fences.PYTHON, fences.UNMARKED)
    return [block.content for block in fences.blocks(markdown) if block.language in kinds and block.content.strip()]


def templates_sha256() -> str:
    """Return a hash of the templates, which is part of an evaluation's configuration."""
    texts = (_BEGUN, _COMPLETE, _WRITE, *BODY_STOP, *PROGRAM_STOP, *FENCE_STOP)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _begins_function(problem: Problem) -> bool:
    """Return whether the prompt ends inside the wanted function."""
    return f"def {problem.entry_point}(" in problem.prompt


def _parts(prompt: str) -> tuple[str, str]:
    """Split a docstring prompt into its description and its assertions."""
    text = prompt.strip()
    try:
        with without_warnings():
            body = ast.parse(text).body
        if len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            text = str(body[0].value.value).strip()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        text = text.strip('"').strip()
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if line.startswith("assert ")), len(lines))
    return "\n".join(lines[:start]).strip(), "\n".join(lines[start:]).strip()
