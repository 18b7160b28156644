"""What a program wrote is there when it has ended, as if the interpreter had ended by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDS_LIKE_A_CHILD = """
import os, sys
from codealign.runner import harness, instrument
made = harness.Harness(None, [])
source = sys.argv[1]
code, _, names, _, _ = made._ready(instrument.compile_code(source), None, {"code": source})
exec(code, names)
made.finish()
os._exit(0)
"""


@pytest.mark.parametrize(
    "program",
    [
        "print('a')",
        "import os\nout = os.fdopen(1, 'w')\nout.write('a\\n')",
        "import os\nwrite = os.fdopen(1, 'w').write\nwrite('a\\n')",
        "out = open(1, 'w', closefd=False)\nprint('a', file=out)",
        "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer)\nprint('a', file=out)",
        "import io\nout = io.BufferedWriter(io.FileIO(1, 'w'))\nout.write(b'a\\n')",
        "import io, sys\nprint('a')\nsys.stdout = io.StringIO()\nprint('b')",
        "import sys\nprint('a')\nsys.stdout = None",
        "import sys\nprint('a')\ndel sys.stdout",
        "import atexit, os, sys\natexit.register(os.write, 1, b'a\\n')\nsys.stdout = None",
        "import io, sys\nprint('a')\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())",
        "import sys\nprint('a')\nsys.stdout.close()",
        "class A:\n    def __del__(self):\n        print('a')\nx = A()",
        "class A:\n    def __del__(self):\n        print('a')\n__x = A()",
        "class A:\n    def __del__(self):\n        print('a')\nclass B:\n    x = A()",
        "class A:\n    def __del__(self):\n        self.other = None\nclass B:\n    def __del__(self):\n"
        "        print('a')\nx = A()\nx.other = B()",
        "import io, sys\nclass A:\n    def __del__(self):\n        print('a')\nx = A()\nsys.stdout = io.StringIO()",
        "seen = ['a']\nclass A:\n    def __del__(self):\n        print(seen.pop())\nx = A()",
        "def f():\n    try:\n        yield\n    finally:\n        print('a')\nx = f()\nnext(x)",
        "def f():\n    try:\n        yield from [1]\n    except GeneratorExit:\n        print('a')\nx = f()\nnext(x)",
    ],
)
def test_nothing_that_a_program_wrote_is_lost(program: str) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS_LIKE_A_CHILD, program], capture_output=True, check=True)
    itself = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (itself.stdout, itself.stderr) == (b"a\n", b"")
