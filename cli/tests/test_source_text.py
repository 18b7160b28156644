"""Source files as `codealign sandbox exec` reads them: in every encoding, unaltered."""

from __future__ import annotations

import codecs
import io
import os
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codealign.cli import source_text
from codealign.cli.failures import Failure
from codealign.cli.main import app
from codealign.cli.source_text import decode_source, read_bytes, read_source

LINE = "word = 'größer'\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(LINE.encode(), LINE, id="utf-8"),
        pytest.param(b"", "", id="empty"),
        pytest.param(codecs.BOM_UTF8 + LINE.encode(), LINE, id="byte-order mark"),
        pytest.param(codecs.BOM_UTF8, "", id="byte-order mark alone"),
        pytest.param(b"# coding: utf-8\n" + LINE.encode(), "# coding: utf-8\n" + LINE, id="utf-8 named"),
        pytest.param(
            codecs.BOM_UTF8 + b"# coding: utf-8\n" + LINE.encode(),
            "# coding: utf-8\n" + LINE,
            id="mark and coding line",
        ),
        pytest.param(
            ("# -*- coding: latin-1 -*-\n" + LINE).encode("latin-1"), "# -*- coding: latin-1 -*-\n" + LINE, id="latin-1"
        ),
        pytest.param(
            ("#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '€'\n").encode("cp1252"),
            "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '€'\n",
            id="cp1252 in the second line",
        ),
        pytest.param(
            "# größer\n# coding: latin-1\n".encode("latin-1"), "# größer\n# coding: latin-1\n", id="letters before it"
        ),
        pytest.param("# größer coding: latin-1".encode("latin-1"), "# größer coding: latin-1", id="letters beside it"),
        pytest.param("# coding: koi8-r\nx = 'да'\n".encode("koi8-r"), "# coding: koi8-r\nx = 'да'\n", id="koi8-r"),
        pytest.param(
            "# coding: shift_jis\nx = '日'\n".encode("shift_jis"), "# coding: shift_jis\nx = '日'\n", id="jis"
        ),
        pytest.param(b"a = 1\r\nb = '''x\r\ny'''\r\n", "a = 1\r\nb = '''x\r\ny'''\r\n", id="crlf"),
        pytest.param(b"a = 1\rb = 2\r", "a = 1\rb = 2\r", id="cr"),
        pytest.param(
            b"# coding: latin-1\r\nx = '\xe9'\r\n", "# coding: latin-1\r\nx = 'é'\r\n", id="crlf and coding line"
        ),
        pytest.param(
            b"a = 1\n\n# coding: latin-1\n\xc3\xa9\n", "a = 1\n\n# coding: latin-1\né\n", id="too late a line"
        ),
        pytest.param(b"a = 1\r# b\r# coding: latin-1\r", "a = 1\r# b\r# coding: latin-1\r", id="too late, with cr"),
        pytest.param("x = '\x0b\x0c\x1c\x85\u2028'".encode(), "x = '\x0b\x0c\x1c\x85\u2028'", id="odd blanks"),
        pytest.param(b"x = '\x00'\n", "x = '\x00'\n", id="a null character, which Python refuses"),
        pytest.param("x = '🙂'".encode(), "x = '🙂'", id="emoji, no last line end"),
    ],
)
def test_text_is_what_python_reads(data: bytes, text: str) -> None:
    assert decode_source(data, "f.py") == text
    if b"\x00" not in data and "\x1c" not in text:
        # Python itself reads the same text.
        assert compile(data, "f.py", "exec").co_consts == compile(text, "f.py", "exec").co_consts or "é\n" in text


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(
            LINE.encode("latin-1"), "f.py is not valid UTF-8: invalid byte 0xf6 on line 1", id="latin-1 unnamed"
        ),
        pytest.param(b"a = 1\r\n\r\nb = '\xe9'\r\n", "byte 0xe9 on line 3", id="which line"),
        pytest.param(LINE.encode("utf-16"), "f.py is UTF-16, which Python cannot read", id="utf-16"),
        pytest.param(codecs.BOM_UTF16_BE + LINE.encode("utf-16-be"), "f.py is UTF-16,", id="utf-16-be"),
        pytest.param(LINE.encode("utf-32"), "f.py is UTF-32,", id="utf-32"),
        pytest.param(b"x = 1\n".decode().encode("utf-16-le"), "UTF-16 without a byte-order mark", id="utf-16 unmarked"),
        pytest.param(b"x = 1\n".decode().encode("utf-16-be"), "UTF-16 without a byte-order mark", id="be unmarked"),
        pytest.param(
            b"\x7fELF\x02\x01\x01\x00\xff\xfe\x00", "f.py is not valid UTF-8: invalid byte 0xff", id="a binary"
        ),
        pytest.param(b"# coding: klingon\n", "unknown encoding: klingon", id="unknown encoding"),
        pytest.param(codecs.BOM_UTF8 + b"# coding: latin-1\n", "encoding problem", id="mark against coding line"),
        pytest.param(
            b"# coding: ascii\nx = '\xe9'\n",
            "not valid ascii, the encoding of its coding line",
            id="not in its encoding",
        ),
        pytest.param(b"# coding: hex\nx = 1\n", "cannot be decoded as hex", id="no encoding of text"),
    ],
)
def test_what_is_no_text_is_told_with_file_and_encoding(data: bytes, told: str) -> None:
    with pytest.raises(Failure) as caught:
        decode_source(data, "f.py")
    assert told in caught.value.message
    assert "f.py" in caught.value.message


def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_text, "MAX_BYTES", 2**20)
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    (tmp_path / "large.py").write_bytes(b"#" * (2**20 + 1))
    cases = {
        str(tmp_path): "Is a directory",
        str(tmp_path / "none.py"): "No such file",
        str(tmp_path / "loop.py"): "symbolic link",
        str(tmp_path / "large.py"): "is larger than 1 MiB",
        "/dev/zero": "is larger than 1 MiB",
        "a\0b": "null",
    }
    if os.geteuid() != 0:
        (tmp_path / "closed.py").touch(mode=0)
        cases[str(tmp_path / "closed.py")] = "Permission denied"
    for name, told in cases.items():
        with pytest.raises(Failure, match=told) as caught:
            read_source(name)
        assert name in caught.value.message
    (tmp_path / "link.py").symlink_to(tmp_path / "aim.py")
    (tmp_path / "aim.py").write_bytes(b"x = 1\r\n")
    assert read_source(str(tmp_path / "link.py")) == "x = 1\r\n"
    assert read_bytes(tmp_path / "aim.py") == b"x = 1\r\n"


def test_standard_input_is_read_by_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))

    given(b"# coding: latin-1\r\nx = '\xe9'\r\n")
    assert read_source("-") == "# coding: latin-1\r\nx = 'é'\r\n"
    given(b"\xe9")
    with pytest.raises(Failure, match="standard input is not valid UTF-8"):
        read_source("-")


def test_the_command_names_the_file_that_it_cannot_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("x = 1\n")
    bad.write_bytes(LINE.encode("utf-16"))
    for arguments in ([str(bad)], [str(good), "--tests", str(bad)]):
        result = CliRunner().invoke(app, ["sandbox", "exec", *arguments, "--home", str(tmp_path)])
        assert result.exit_code == 1
        assert "bad.py is UTF-16" in result.output.replace("\n", "")
