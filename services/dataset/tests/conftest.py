"""Both databases as real servers, and records for them."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2
from codealign.common.records import complete
from codealign.dataset.publishing.folders import VersionFolders
from codealign.dataset.publishing.publisher import Publisher
from codealign.dataset.storage import migrate
from codealign.dataset.storage.append import append
from codealign.dataset.storage.database import Database
from codealign.dataset.storage.schema import metadata

PASSED = sandbox_pb2.VERDICT_PASSED
GVISOR = sandbox_pb2.ISOLATION_GVISOR


class Make:
    """Builds complete records; equal arguments give equal records."""

    def seed(self, number: int = 0) -> pb.Record:
        code = f"def add_{number}(a):\n    return a + {number}\n"
        body = pb.Seed(code=code, name=f"add_{number}", path=f"lib/m{number}.py", line=number + 1, license="MIT")
        return complete(pb.Record(kind=pb.KIND_SEED, seed=body))

    def import_source(self, name: str = "theirs.jsonl") -> pb.Record:
        body = pb.Import(name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), format="rows")
        return complete(pb.Record(kind=pb.KIND_IMPORT, import_source=body))

    def config(self, name: str = "concepts", kind: pb.Kind.ValueType = pb.KIND_CONCEPT_SET) -> pb.Record:
        body = pb.StageConfig(kind=kind, name=name, settings_json="{}")
        return complete(pb.Record(kind=pb.KIND_STAGE_CONFIG, stage_config=body))

    def prefix(self, number: int = 0) -> pb.Record:
        return complete(pb.Record(kind=pb.KIND_PROMPT_PREFIX, prompt_prefix=pb.PromptPrefix(text=f"few {number}")))

    def completion(self, prefix: pb.Record, config: str, suffix: str = "Add, please.", seed: int = 7) -> pb.Record:
        body = pb.Completion(prompt_suffix=suffix, text="Sure: x = 1", finish_reason="stop_string", stop_string="\n\n")
        key = f"{hashlib.sha256(suffix.encode()).hexdigest()}/{seed}"
        return complete(
            pb.Record(kind=pb.KIND_COMPLETION, parents=[prefix.id], stage_config_id=config, key=key, completion=body)
        )

    def concepts(self, parent: pb.Record, attempt: int = 0, config: str = "", words: str = "addition") -> pb.Record:
        record = pb.Record(kind=pb.KIND_CONCEPT_SET, parents=[parent.id], attempt=attempt, stage_config_id=config)
        record.concept_set.concepts.append(words)
        return complete(record)

    def instruction(self, parent: pb.Record, attempt: int = 0, config: str = "") -> pb.Record:
        body = pb.Instruction(text=f"Add, please. ({parent.id[:6]})", category="function", difficulty="easy")
        return complete(
            pb.Record(
                kind=pb.KIND_INSTRUCTION,
                parents=[parent.id],
                attempt=attempt,
                stage_config_id=config,
                instruction=body,
            )
        )

    def response(self, parent: pb.Record, attempt: int = 0, config: str = "") -> pb.Record:
        body = pb.Response(answer=f"Here – {attempt}", code="x = 1", tests="assert x")
        return complete(
            pb.Record(
                kind=pb.KIND_RESPONSE, parents=[parent.id], attempt=attempt, stage_config_id=config, response=body
            )
        )

    def verdict(
        self,
        parent: pb.Record,
        verdict: sandbox_pb2.Verdict.ValueType = PASSED,
        isolation: sandbox_pb2.Isolation.ValueType = GVISOR,
    ) -> pb.Record:
        body = pb.VerdictBody(result=sandbox_pb2.Result(verdict=verdict, isolation=isolation))
        return complete(pb.Record(kind=pb.KIND_VERDICT, parents=[parent.id], verdict=body))

    def rejection(
        self, parent: pb.Record, kind: pb.Kind.ValueType, attempt: int = 0, config: str = "", reason: str = "empty"
    ) -> pb.Record:
        body = pb.Rejection(rejected_kind=kind, reason=reason)
        return complete(
            pb.Record(
                kind=pb.KIND_REJECTION, parents=[parent.id], attempt=attempt, stage_config_id=config, rejection=body
            )
        )

    def decision(self, parent: pb.Record, rule: str = "chosen", kept: bool = True) -> pb.Record:
        outcome = pb.Decision.OUTCOME_KEPT if kept else pb.Decision.OUTCOME_DROPPED
        body = pb.Decision(outcome=outcome, rule=rule)
        return complete(pb.Record(kind=pb.KIND_DECISION, parents=[parent.id], decision=body))

    def example(
        self, instruction: pb.Record, response: pb.Record, verdict: pb.Record | None, seed: pb.Record
    ) -> pb.Record:
        """Build a row. Without a verdict it is one of a pipeline that executes nothing."""
        verdicts = [verdict.id] if verdict else []
        body = pb.Example(
            instruction=instruction.instruction.text,
            response=response.response.answer,
            tests=response.response.tests,
            category="function",
            difficulty="easy",
            concepts=["addition", "naïveté"],
            lineage=[
                pb.LineageStep(stage="seeds", record_id=seed.id),
                pb.LineageStep(stage="instructions", record_id=instruction.id),
                pb.LineageStep(stage="responses", record_id=response.id),
            ],
            verdict_id="".join(verdicts),
            model_revision="0123abcd",
        )
        return complete(pb.Record(kind=pb.KIND_EXAMPLE, parents=[response.id, *verdicts], example=body))

    def chain(self, number: int = 0) -> list[pb.Record]:
        """Build a seed with everything derived from it, up to its example: six records, parents first."""
        seed = self.seed(number)
        concepts = self.concepts(seed)
        instruction = self.instruction(concepts)
        response = self.response(instruction)
        verdict = self.verdict(response)
        example = self.example(instruction, response, verdict, seed)
        return [seed, concepts, instruction, response, verdict, example]

    def chains(self, count: int) -> list[pb.Record]:
        return [record for number in range(count) for record in self.chain(number)]


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


class Postgres:
    """A private PostgreSQL server on a Unix socket."""

    def __init__(self, bin_dir: Path) -> None:
        self._bin = bin_dir
        # Directly in /tmp: a socket's path must be short, and another user must have access.
        self.folder = Path(tempfile.mkdtemp(prefix="codealign-pg-", dir="/tmp"))
        self._user = next(name for name in ("postgres", "nobody") if _has_user(name)) if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)

    def prepare(self) -> None:
        self._run("initdb", "-A", "trust", "-U", "codealign", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()
        self.create("records")

    @property
    def url(self) -> str:
        return self.url_of("records")

    def url_of(self, database: str) -> str:
        return f"postgresql://codealign@/{database}?host={self.folder}"

    def create(self, database: str) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-w", "-s", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-s", "-m", "immediate", "stop")

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):  # it is not running, because a test or its start failed
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), "-D", str(self.folder / "data"), *arguments]
        account = {"user": self._user, "group": _group(self._user), "extra_groups": []} if self._user else {}
        # To a file rather than a pipe, which the server would inherit and keep open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60, **account
            )  # type: ignore[call-overload]
            output.seek(0)
            assert done.returncode == 0, f"{command}: {output.read().decode()}"


def _has_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _group(name: str) -> int:
    return pwd.getpwnam(name).pw_gid


def _postgres_bin() -> Path | None:
    found = shutil.which("pg_ctl")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    bin_dir = _postgres_bin()
    if bin_dir is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's programs (initdb, pg_ctl) are missing, and CI tests both databases")
        pytest.skip(f"no initdb and pg_ctl on {getpass.getuser()}'s PATH or in /usr/lib/postgresql/*/bin")
    server = Postgres(bin_dir)
    try:
        server.prepare()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def _postgres_database(postgres: Postgres) -> Iterator[Database]:
    database = Database(postgres.url)
    migrate.upgrade(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "records.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    return path


@pytest.fixture
def sqlite_database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    path = tmp_path / "records.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def postgres_database(_postgres_database: Database) -> Database:
    tables = ", ".join(metadata.tables)
    _postgres_database.write(lambda connection: connection.execute(text(f"TRUNCATE {tables}")))
    return _postgres_database


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    name = "sqlite_database" if request.param == "sqlite" else "postgres_database"
    found: Database = request.getfixturevalue(name)
    return found


@pytest.fixture
def publisher(database: Database, tmp_path: Path) -> Publisher:
    return Publisher(database, VersionFolders(str(tmp_path / "versions"), tmp_path / "scratch"))


def fill(database: Database, records: Sequence[pb.Record], collection: str = "") -> None:
    for start in range(0, len(records), 1000):
        append(database, records[start : start + 1000], collection=collection)
