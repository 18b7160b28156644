"""`codealign data export`: a version's rows in one file, which gets its name once it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.cli.commands import data
from codealign.cli.failures import Failure
from codealign.cli.main import app

ROWS = b'{"id":"1"}\n', b'{"id":"2"}\n'


class Exporting:
    """A connection whose dataset service exports two pieces."""

    def __init__(self, fails: bool) -> None:
        self.clients = self.dataset = self
        self.Export = None
        self._fails = fails

    async def stream(self, _method: object, _request: ds.ExportRequest) -> AsyncIterator[ds.ExportResponse]:
        for row in ROWS:
            yield ds.ExportResponse(data=row)
        if self._fails:
            raise Failure("the service went away")


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def command(output: str, *, fails: bool = False) -> Result:
        @contextlib.asynccontextmanager
        async def services(*_: object, **__: object) -> AsyncIterator[Any]:
            yield Exporting(fails)

        monkeypatch.setattr(data, "services", services)
        return CliRunner().invoke(app, ["data", "export", "v-1", "-o", output])

    return command


def test_the_rows_are_written_whole_or_not_at_all(export: Any, tmp_path: Path) -> None:
    assert export("rows.jsonl").exit_code == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == b"".join(ROWS)
    assert export("more.jsonl", fails=True).exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("given", [".", "/", "folder"])
def test_a_directory_is_refused(export: Any, tmp_path: Path, given: str) -> None:
    (tmp_path / "folder").mkdir()
    result = export(given)
    assert result.exit_code == 1
    assert f"-o {given} is a directory: name a file" in result.output


def test_a_device_is_written_to_and_not_replaced(export: Any, tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    assert export("null").exit_code == 0
    assert (tmp_path / "null").is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["null"]
