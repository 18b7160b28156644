"""Ten forms in which models write an answer and its tests, and Python modules to put into them."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from codealign.common.text import lines
from codealign.coordinator.reading.python_code import compiles

Shape = Callable[[str, str], str]
"""Builds a completion from code and tests. Each ends with a line ending, like the content of a fence."""

BOM = "\ufeff"


def ended(code: str) -> str:
    """Return the code as it appears in a fence: with an ending on its last line."""
    return code if code.endswith(("\n", "\r")) else f"{code}\n"


def _prefixed(code: str, prefix: str, *, blank: str = "") -> str:
    return "".join((prefix if line.strip("\r\n") else blank) + line for line in lines(code, keepends=True))


def _plain(code: str, tests: str) -> str:
    return f"It does so.\n\n```python\n{code}```\n\nThat's it.\n</answer>\n<tests>\n```python\n{tests}```\n"


def _tildes(code: str, tests: str) -> str:
    return f"~~~Python3\n{code}~~~\n</answer>\n\n<tests>\n~~~PY\n{tests}~~~\n</tests>\n"


def _five_backticks(code: str, tests: str) -> str:
    return f'Here is `it`:\n\n`````python title="it.py"\n{code}`````</answer>\n<tests>\n`````py\n{tests}`````</tests>'


def _list_item(code: str, tests: str) -> str:
    answer = f"1. First:\n\n   ```python\n{_prefixed(code, '   ')}   ```\n\n2. Done.\n"
    return f"{answer}</answer>\n<tests>\n- All:\n  ```python\n{_prefixed(tests, '  ')}  ```\n"


def _nested_list(code: str, tests: str) -> str:
    answer = f"10. First\n    * so:\n\n      ``` {{.python}}\n{_prefixed(code, ' ' * 6)}      ```\n"
    return f"{answer}</answer>\n<tests>\n1. ```python\n{_prefixed(tests, '   ')}   ```\n"


def _block_quote(code: str, tests: str) -> str:
    quoted = f"> It is:\n>\n> ```python\n{_prefixed(code, '> ', blank='>')}> ```\n"
    return f"{quoted}\n</answer>\n<tests>\n```python\n{tests}```\n"


def _among_others(code: str, tests: str) -> str:
    before = (
        'It\'s installed by\n\n```bash\necho "it\'s \'here\'\n```\n\nand used as\n\n```pycon\n>>> f("""x""")\n```\n\n'
    )
    after = "\nwhich prints\n\n```\nit's 6\n```\n"
    return f"{before}```python\n{code}```\n{after}</answer>\n<tests>\n```python\n{tests}```\n{after}"


def _unmarked(code: str, tests: str) -> str:
    return f"So:\n\n```\n{code}```\n</answer>\n<tests>\n```\n{tests}```\n"


def _crlf(code: str, tests: str) -> str:
    return f"So:\r\n\r\n```python\r\n{code}```\r\n</answer>\r\n<tests>\r\n```python\r\n{tests}```\r\n"


def _not_closed(code: str, tests: str) -> str:
    return f"**Code:** ```python\n{code}</answer>\n<tests>\n```python3.11\n{tests}"


SHAPES: dict[str, Shape] = {
    "plain": _plain,
    "tildes": _tildes,
    "five backticks": _five_backticks,
    "list item": _list_item,
    "nested list": _nested_list,
    "block quote": _block_quote,
    "among others": _among_others,
    "unmarked": _unmarked,
    "CRLF around": _crlf,
    "not closed": _not_closed,
}

_PIECES = (
    "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n",
    '"""Module.\n\n```\nplain fence at the margin\n```\n\n~~~python\ntagged\n~~~\n"""\n',
    'T{n} = """\n```python\nx = 1\n```\n</answer>\n<tests>\n```"""\n',
    "T{n} = '''</answer>\n<tests>\n</tests>\n'''\n",
    "T{n} = 'a\\\n```\\\nb'\n",
    'T{n} = f"""{{1 + 1}}\n~~~\n{{\'```\'}}\n"""\n',
    "T{n} = rb'''\\\n```\n'''\n",
    "T{n} = ['\"\"\"', \"'''\", '\\'', \"\\\"\", r'\\\\', '#']  # it's \"\"\" a ``` comment\n",
    "T{n} = 'sep\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029 end'  # \x1c\x85\u2028\n",
    "\x0c\n# page\x0c\n\x0c\n",
    "T{n} = 1 + \\\n    2 \\\n    + 3\n",
    "def f{n}(x):\n\t'''Doc.\n\n\t```\n\tf(1)\n\t```\n\t'''\n\tif x:\n\t\treturn x\n\treturn None\n",
    'class C{n}:\n  """Two columns.\n\n  ```python\n  C()\n  ```\n  """\n'
    "  a = 1\n\n  async def m(self):\n    return [i async for i in self]\n",
    "def g{n}(a, /, b=('x',), *c, d: int = 1, **e) -> None:\n    match a:\n"
    "        case [1, *_] | {{'k': 1}}:\n            return '>>> a'\n",
    "try:\n    T{n} = (\n  1,\n\n      2,\n)\nfinally:\n    pass\n",
    "    # a comment further in\nT{n} = 1; U{n} = 2\n",
    "if __name__ == '__main__':\n    print(input())\n",
    "T{n} = lambda: (yield)\n\n\n   \n\t\n",
    "@property\ndef p{n}(self): return self.x if (y := 1) else {{**{{}}}}\n",
    'T{n} = """\\\n> quoted\n> ```\n- item\n  ```\n"""\n',
)


def generated(count: int, seed: int = 1) -> Iterator[str]:
    """Return modules made of pieces that are hard to parse: fences and tags in literals, odd line endings and white
    space."""
    dice = random.Random(seed)
    while count:
        pieces = [piece.format(n=number) for number, piece in enumerate(dice.choices(_PIECES, k=dice.randint(1, 7)))]
        code = "\n".join(pieces)
        ending = dice.choice(("\n", "\n", "\r\n", "\r"))
        code = code.replace("\n", ending)
        if dice.random() < 0.2:
            code = code.removesuffix(ending)
        if dice.random() < 0.2:
            code = BOM + code
        if code.strip() and compiles(code):
            count -= 1
            yield code


def of_standard_library(count: int, seed: int = 2) -> Iterator[str]:
    """Return modules of the running Python's library: all that contain a fence, and others up to the count."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    random.Random(seed).shuffle(files)
    texts = (path.read_bytes().decode("utf-8", "replace") for path in files)
    readable = (text for text in texts if "\ufffd" not in text and text.strip() and len(text) < 100_000)
    for text in readable:
        fences = "```" in text or "~~~" in text
        if (fences or count > 0) and compiles(text):
            count -= 1
            yield text
