"""What a model is asked, in the two styles.

"base": plain completion, as EvalPlus asks base models: HumanEval's prompt (a signature and a docstring) is continued
by a body; MBPP's (a docstring with the task and an assertion) by a whole program.

"tuned": an instruction with HumanEval's prompt in a code block (MBPP: the description, then its assertion), and the
answer begun for it by an opening Python fence. The last message is the assistant's, and the model continues it. Some
models open a fence of their own there, at once or after a few words; of such an answer the program is the block that
defines the wanted function.
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
"""After a function's body: whatever begins at the margin is no more part of it."""
PROGRAM_STOP = ('\n"""', "\nassert", "\nif __name__", "\nprint(", "\n```")
"""After a program: the next task's docstring, tests, and uses of it."""
FENCE_STOP = ("\n```\n\n",)
"""After a closing fence and a blank line. Not after any fence: a model that talks first opens one of its own, and code
follows an opening fence at once."""

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
    """A prompt: a text to continue, or a conversation whose last message is to be continued."""

    text: str
    messages: tuple[tuple[str, str], ...]
    """(role, content)."""
    stop: tuple[str, ...]

    @property
    def written(self) -> str:
        """The prompt as a record keeps it: the text, or the messages as JSON."""
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
    """The question in a style of `STYLES`."""
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
    """The program that a completion stands for, as it was written."""
    if style == BASE:
        return f"{problem.prompt.strip()}\n{completion}"
    return _program(completion, problem.entry_point)


def _program(completion: str, entry_point: str) -> str:
    """The program in an answer that was begun by an opening fence.

    The first block that defines the wanted function; where none does, the first that compiles, or else the first.
    """
    begun = _contents(_BEGUN + completion)
    # A fence may close ours, or open the model's own: then ours is not there.
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
    """A hash of the templates: part of an evaluation's configuration."""
    texts = (_BEGUN, _COMPLETE, _WRITE, *BODY_STOP, *PROGRAM_STOP, *FENCE_STOP)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _begins_function(problem: Problem) -> bool:
    """The prompt ends inside the function that is wanted."""
    return f"def {problem.entry_point}(" in problem.prompt


def _parts(prompt: str) -> tuple[str, str]:
    """A docstring prompt's description and its assertions."""
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
