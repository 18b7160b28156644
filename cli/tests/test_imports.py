"""The imports that a function needs."""

from __future__ import annotations

import ast
import textwrap

import pytest

from codealign.cli.imports import ModuleImports
from codealign.cli.seeds import function_source


def needed(module: str, name: str = "f") -> list[str]:
    text = textwrap.dedent(module)
    tree = ast.parse(text)
    function = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    )
    return ModuleImports.of(tree).needed_by(function, function_source(function, text.split("\n")))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        pytest.param("import os\nimport re\ndef f(x):\n    return re.sub(x)", ["import re"], id="used alone"),
        pytest.param("import os, re\ndef f(x):\n    return re.sub(x)", ["import re"], id="one of a list"),
        pytest.param(
            "from collections import OrderedDict as OD, deque\ndef f(x):\n    return OD(x)",
            ["from collections import OrderedDict as OD"],
            id="renamed",
        ),
        pytest.param(
            "from x import a, b, c\ndef f():\n    return c(a)", ["from x import a, c"], id="several of one statement"
        ),
        pytest.param("import numpy as np\ndef f():\n    return np.zeros(1)", ["import numpy as np"], id="import as"),
        pytest.param("from . import sub\ndef f():\n    return sub", ["from . import sub"], id="relative"),
        pytest.param("from ..a.b import c\ndef f():\n    return c", ["from ..a.b import c"], id="relative, deep"),
        pytest.param("import re\ndef f(re):\n    return re", [], id="a parameter of that name"),
        pytest.param("import re\ndef f():\n    re = 1\n    return re", [], id="a local of that name"),
        pytest.param("import re\ndef f(xs):\n    return [re for re in xs]", [], id="a comprehension's variable"),
        pytest.param("import re\ndef f():\n    import re\n    return re", [], id="imported inside"),
        pytest.param(
            "import re\ndef f():\n    def g():\n        return re.I\n    return g",
            ["import re"],
            id="used by an inner function",
        ),
        pytest.param(
            "import re\ndef f():\n    class C:\n        x = re.I\n    return C",
            ["import re"],
            id="used by an inner class",
        ),
        pytest.param(
            "from typing import Any, List\ndef f(x: List) -> Any:\n    return x",
            ["from typing import Any, List"],
            id="annotations",
        ),
        pytest.param(
            "from typing import Optional\ndef f(x: 'Optional[int]'):\n    return x",
            ["from typing import Optional"],
            id="quoted annotations",
        ),
        pytest.param(
            "from a import red\nfrom typing import Literal\ndef f(x: Literal['red']):\n    return x",
            ["from typing import Literal"],
            id="a literal is no name",
        ),
        pytest.param(
            "import functools\n@functools.cache\ndef f(x):\n    return x", ["import functools"], id="decorators"
        ),
        pytest.param("import sys\ndef f(x=sys.maxsize):\n    return x", ["import sys"], id="defaults"),
        pytest.param("import os.path\ndef f(x):\n    return os.path.join(x)", ["import os.path"], id="dotted"),
        pytest.param(
            "import xml.dom\nimport xml.sax\ndef f(x):\n    return xml.sax.parse(x)",
            ["import xml.sax"],
            id="dotted, of two",
        ),
        pytest.param(
            "import os\nimport os.path\ndef f(x):\n    return os.path.join(os.getcwd(), x)",
            ["import os.path"],
            id="the deeper one binds the shorter",
        ),
        pytest.param(
            "try:\n    import json\nexcept ImportError:\n    import other as json\ndef f(x):\n    return json.dumps(x)",
            ["import json"],
            id="with a fallback",
        ),
        pytest.param(
            "try:\n    from fast import go\nexcept ImportError:\n    go = None\ndef f(x):\n    return go(x)",
            ["from fast import go"],
            id="with a value as fallback",
        ),
        pytest.param(
            "from m import g\ndef g():\n    pass\ndef f():\n    return g()", [], id="defined again by the module"
        ),
        pytest.param("LIMIT = 1\ndef g():\n    pass\ndef f():\n    return g(LIMIT)", [], id="the module's own names"),
        pytest.param("from m import *\ndef f():\n    return len(undefined)", ["from m import *"], id="from a star"),
        pytest.param("from m import *\ndef f(x):\n    return len(x)", [], id="a star that is not needed"),
        pytest.param(
            "from __future__ import annotations\nimport re\ndef f(x: re.Pattern):\n    return x",
            ["from __future__ import annotations", "import re"],
            id="annotations that are not evaluated",
        ),
        pytest.param("from __future__ import annotations\ndef f(x):\n    return x", [], id="no annotation"),
        pytest.param(
            "import b\nimport a\ndef f():\n    return a, b", ["import b", "import a"], id="the module's order"
        ),
        pytest.param("def f(n):\n    return f(n - 1)", [], id="itself"),
    ],
)
def test_the_function_gets_the_imports_it_uses_and_no_other(module: str, expected: list[str]) -> None:
    assert needed(module) == expected
