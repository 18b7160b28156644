"""Correct answers in every form, from an OpenAI-compatible endpoint to a published version."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from codealign.coordinator.reading import parsing
from tests.cases.shapes import BOM, SHAPES, ended, generated
from tests.e2e.commands import command
from tests.e2e.test_recorded_run import versions

pytestmark = [pytest.mark.gvisor, pytest.mark.timeout(300)]

_FUNCTIONS = {
    "area": ("def area(w, h):\n    return w * h\n", "assert area(2, 3) == 6\n"),
    "initials": (
        "def initials(name):\n    return ''.join(p[0] for p in name.split())\n",
        "assert initials('A B') == 'AB'\n",
    ),
    "leap": (
        "def leap(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n",
        "assert leap(2000)\n",
    ),
    "median": (
        "def median(xs):\n    xs = sorted(xs)\n    return xs[len(xs) // 2]\n",
        "assert median([3, 1, 2]) == 2\n",
    ),
    "rotate": (
        "def rotate(items, by):\n    return items[by:] + items[:by]\n",
        "assert rotate([1, 2, 3], 1) == [2, 3, 1]\n",
    ),
    "vowels": ("def vowels(text):\n    return sum(c in 'aeiou' for c in text)\n", "assert vowels('area') == 3\n"),
    "gcd": ("def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n", "assert gcd(12, 18) == 6\n"),
    "flatten": (
        "def flatten(rows):\n    return [x for row in rows for x in row]\n",
        "assert flatten([[1], [2]]) == [1, 2]\n",
    ),
    "clamp": ("def clamp(x, low, high):\n    return max(low, min(x, high))\n", "assert clamp(9, 0, 5) == 5\n"),
    "caesar": (
        "def caesar(s, k):\n    return ''.join(chr(97 + (ord(c) - 97 + k) % 26) for c in s)\n",
        "assert caesar('z', 1) == 'a'\n",
    ),
    "invert": (
        "def invert(table):\n    return {v: k for k, v in table.items()}\n",
        "assert invert({1: 2}) == {2: 1}\n",
    ),
    "digits": ("def digits(n):\n    return [int(d) for d in str(n)]\n", "assert digits(305) == [3, 0, 5]\n"),
}
_END = "</answer>\n<tests>\n```python\n{tests}```\n"
TWELVE = {
    "area": "Needs nothing:\n\n```bash\npip list\n```\n\nNow the code:\n\n```python\n{code}```\n" + _END,
    "initials": "```PYTHON\n{code}```\n\nFor two names it gives\n\n```text\nAB (it's short)\n```\n\nDone.\n" + _END,
    "leap": "Layout:\n\n```\nyear -> bool\n```\n\n````python3\n{code}````\n" + _END,
    "median": '~~~python title="median.py"\n{code}~~~\n' + _END,
    "rotate": '```python\n"""Rotate.\n\n```python\nrotate([1], 0)\n```\n"""\n\n\n{code}```\n' + _END,
    "vowels": "1. Count them:\n\n   ```python\n   {indented}   ```\n\n" + _END,
    "gcd": "Euclid.\r\n\r\n```python\r\n{crlf}```\r\n</answer>\r\n<tests>\r\n```python\r\n{tests}",
    "flatten": '```{{.python}}\nBREAK = "\u2028\x85\x1e"\n\n\n{code}```\n\n```json\n[[1], [2]]\n```\n' + _END,
    "clamp": "First:\n\n```python\ndef clamp(x, low, high):\n    return 1\n```\n\nBetter:\n\n```python\n{code}```\n"
    + _END,
    "caesar": "```python\n{code}```\n\nUse it:\n\n```python\nword = input('word? ')\nprint(caesar(word, 2))\n```\n"
    + _END,
    "invert": "```python\nC = '''\n</answer>\n<tests>'''\n\n\n{code}```</answer>\n<tests>\n```py\n{tests}```\n</tests>",
    "digits": "```python\n{code}\n\x0c\nif __name__ == '__main__':\n    print(digits(input()))\n```\n\n"
    "### Example usage\n\n```pycon\n>>> digits(12)\n[1, 2]\n```\n" + _END,
}
"""Answers in twelve forms, each a correct solution with correct tests."""


@dataclass(frozen=True)
class Task:
    """The endpoint's answer to each stage for one seed."""

    concepts: str
    instruction: str
    completion: str


def _words(name: str, count: int) -> str:
    """Return meaningless words that no other name has."""
    dice = random.Random(name)
    return " ".join("".join(dice.choices("bdfgklmnprst", k=3)) + dice.choice("aeiou") for _ in range(count))


def _twelve() -> dict[str, Task]:
    tasks = {}
    for name, template in TWELVE.items():
        code, tests = _FUNCTIONS[name]
        indented = code.replace("\n    ", "\n       ")
        text = template.format(code=code, tests=tests, indented=indented, crlf=code.replace("\n", "\r\n"))
        tasks[name] = _task(name, f"{_words(name, 30)}.\n\n{text}")
    return tasks


def _modules() -> dict[str, tuple[str, str]]:
    """Return unusual modules, one per form: a program and its completion."""
    found = (code for code in generated(200, seed=4) if "T0 =" in code and BOM not in code)
    modules = {}
    for number, shape in enumerate(SHAPES):
        code = f"def only_{_words(shape, 2).replace(' ', '_')}(x):\n    return x + {number}\n\n\n" + ended(next(found))
        name = code.partition("(")[0].removeprefix("def ")
        modules[shape] = code, SHAPES[shape](code, f"assert {name}(1) == {number + 1}\n")
    return modules


def _task(name: str, completion: str) -> Task:
    return Task(f"concept {name}, lists", f"Write {name}: {_words(name + ' task', 40)}.", completion)


def _seed(name: str) -> str:
    body = "\n".join(f"    {word} = value + {number}" for number, word in enumerate(_words(name, 8).split()))
    last = _words(name, 8).split()[-1]
    return f'def seed_{name}(value):\n    """{_words(name + " seed", 20)}."""\n{body}\n    return {last}\n'


@contextmanager
def _endpoint(tasks: dict[str, Task]) -> Iterator[str]:
    """An endpoint that knows the seeds and tasks, and honours stop strings."""

    def answer(prompt: str) -> str:
        item = prompt[prompt.rindex("## Example") :]
        stage = re.findall(r"<(\w+)>\n", item)[-1]
        for name, task in tasks.items():
            if stage == "concepts" and f"def seed_{name}(" in item:
                return f"{task.concepts}\n</concepts>\n"
            if stage == "task" and task.concepts in item:
                return f"{task.instruction}\n</task>\n"
            if stage == "answer" and task.instruction in item:
                return task.completion
        raise AssertionError(item)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(200, {"object": "list", "data": [{"id": "m", "max_model_len": 32768}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/completions":
                self.reply(404, {})
                return
            text, stops = answer(asked["prompt"]), asked.get("stop", [])
            reached = min((stop for stop in stops if stop in text), key=text.index, default=None)
            text = text if reached is None else text[: text.index(reached)]
            choice = {"text": text, "finish_reason": "stop", "stop_reason": reached}
            self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

        def reply(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The published rows, each by the name in its instruction."""
    home = tmp_path_factory.mktemp("answers")
    tasks = _twelve() | {
        f"module{number}": _task(f"module{number}", f"{_words(shape, 30)}.\n\n{completion}")
        for number, (shape, (_, completion)) in enumerate(_modules().items())
    }
    seeds = home / "seeds"
    seeds.mkdir()
    for name in tasks:
        (seeds / f"{name}.py").write_text(_seed(name), encoding="utf-8")
    with _endpoint(tasks) as url:
        environment = {**os.environ, "CODEALIGN_INFERENCE_OPENAI_BASE_URL": url, "NO_PROXY": "127.0.0.1"}
        arguments = ("--engine", "openai", "--model", "m", "--seeds", str(seeds), "--attempts", "1", "--until", "data")
        run = subprocess.run(
            command(home, "run", *arguments), capture_output=True, text=True, timeout=240, env=environment
        )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    (version,) = versions(home)
    exported = subprocess.run(
        command(home, "data", "export", version, "-o", "-"), capture_output=True, timeout=120, check=True
    ).stdout.decode()
    found = [json.loads(line) for line in exported.split("\n") if line]
    assert len(found) == len(tasks), run.stdout
    return {row["instruction"].partition(":")[0].removeprefix("Write "): row for row in found}


def _read(row: dict[str, Any]) -> parsing.ParsedResponse:
    """Return a published row, parsed as the completion was."""
    line_end = "" if row["response"].endswith(("\n", "\r")) else "\n"
    text = f"{row['response']}{line_end}</answer>\n<tests>\n`````python\n{row['tests']}`````\n"
    read = parsing.response(text, cut_off=False)
    assert isinstance(read, parsing.ParsedResponse), read
    return read


def test_twelve_right_answers_are_twelve_rows(rows: dict[str, dict[str, Any]]) -> None:
    tasks = _twelve()
    assert len(tasks) == 12
    for name, task in tasks.items():
        first = parsing.response(task.completion, cut_off=False)
        assert isinstance(first, parsing.ParsedResponse)
        assert rows[name]["response"] in task.completion
        assert _read(rows[name]).code == first.code
        assert rows[name]["tests"] == first.tests


def test_what_was_executed_is_published_byte_for_byte(rows: dict[str, dict[str, Any]]) -> None:
    modules = _modules()
    assert len(modules) == 10
    for number, (code, completion) in enumerate(modules.values()):
        row = rows[f"module{number}"]
        assert row["response"] in f"{_words(list(SHAPES)[number], 30)}.\n\n{completion}"
        assert _read(row).code == code
