"""Every program of the hostile corpus gets its verdict without affecting the next program or the machine."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from codealign.api.sandbox.v1 import sandbox_pb2 as pb
from services.sandbox.tests.conftest import CACHE, Gateway, name_of, running
from tests.hostile import corpus
from tests.hostile.corpus import Case
from tests.hostile.host import Host, resident_bytes

pytestmark = pytest.mark.gvisor

CASES = {case.name: case for case in corpus.load()}
ORDINARY = [case for case in CASES.values() if case.category == "ordinary"]
COMPANIONS = {name for case in CASES.values() for name in (case.after, case.beside)}
"""Programs that run with the cases that name them."""
GROUP = int(os.environ.get("CODEALIGN_HOSTILE_GROUP", "6"))
"""Number of cases after which the ordinary programs are executed."""
SLOTS = 2
MIB = 1024 * 1024
_SECONDS = 120.0
_BEGUN_SECONDS = 0.4
"""Seconds after which a submitted program is running."""


class Rig:
    """A gateway, the machine around it, and ways to execute programs."""

    def __init__(self, gateway: Gateway, host: Host) -> None:
        self.gateway, self.host = gateway, host
        self._faults = 0
        self._unproved: list[str] = []
        """Cases since the ordinary programs were executed."""

    def execute(self, cases: list[Case]) -> list[pb.Result]:
        """Execute all of them at once and return the results in order."""
        requests = [pb.ExecuteStreamRequest(request=case.request(str(index))) for index, case in enumerate(cases)]
        answers = self.gateway.stub.ExecuteStream(iter(requests), timeout=_SECONDS)
        found = {int(answer.result.request_id): answer.result for answer in answers}
        return [found[index] for index in range(len(cases))]

    def judge(self, case: Case) -> None:
        """Execute a case under the conditions in its header and check every verdict."""
        self._faults = len(self._failed_attempts())
        self._unproved.append(case.name)
        if case.after:
            self._assert_right([CASES[case.after]])
            # One for each slot, because the other program has used one of them.
            self._assert_right([case] * SLOTS)
        elif case.beside:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                other = pool.submit(self._assert_right, [CASES[case.beside]])
                time.sleep(_BEGUN_SECONDS)
                self._assert_right([case])
                other.result()
        else:
            self._assert_right([case])

    def _failed_attempts(self) -> list[str]:
        return [line for line in self.gateway.log.read_text().splitlines() if "attempt_failed" in line]

    def _assert_right(self, cases: list[Case]) -> None:
        for case, result in zip(cases, self.execute(cases), strict=True):
            assert name_of(result) in case.verdicts, f"{case.name}: {result}"

    def assert_untouched(self) -> None:
        """Check that no attempt has failed and the machine is unchanged; after some cases, `assert_sound`."""
        if len(self._unproved) >= GROUP:
            self.assert_sound()
            return
        assert self._failed_attempts()[self._faults :] == []
        assert self.host.changes() == []

    def assert_sound(self) -> None:
        """Check that ordinary programs get their verdicts, no attempt has failed, and the machine is unchanged."""
        after, self._unproved = self._unproved, []
        verdicts = {case.name: name_of(result) for case, result in zip(ORDINARY, self.execute(ORDINARY), strict=True)}
        assert verdicts == {case.name: case.verdicts[0] for case in ORDINARY}, f"after {', '.join(after)}"
        assert self._failed_attempts()[self._faults :] == []
        assert self.host.changes() == []


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway with its own cache, with the backend and platform that the environment names."""
    folder = tmp_path_factory.mktemp("rig")
    cache = folder / "cache"
    cache.mkdir()
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    (cache / "bin").symlink_to(CACHE / "bin")
    if (CACHE / "platform.json").exists():
        shutil.copy(CACHE / "platform.json", cache)
    asked = {name: os.environ.get(f"CODEALIGN_HOSTILE_{name.upper()}", "") for name in ("backend", "platform")}
    settings = {name: value for name, value in asked.items() if value}
    with running(folder, cache_dir=str(cache), runners="1", slots=str(SLOTS), **settings) as gateway:
        gateway.wait_ready()
        (runner,) = gateway.stub.GetRunner(pb.GetRunnerRequest(), timeout=10).runners
        assert all(getattr(runner, name) == value for name, value in settings.items()), runner
        host = Host(gateway.process.pid, cache)
        rig = Rig(gateway, host)
        try:
            yield rig
            if gateway.process.poll() is None:  # otherwise the last test has looked
                rig.assert_sound()
        finally:
            host.close()


def test_the_corpus_is_large_and_whole() -> None:
    assert len(CASES) >= 120
    assert len(ORDINARY) == 10
    tries = [case.tries for case in CASES.values()]
    assert sorted(set(tries)) == sorted(tries)
    for case in CASES.values():
        assert 1 <= len(case.verdicts) <= 2, case.name
        assert {case.after, case.beside} <= {"", *CASES}, case.name
    unseen = corpus.VERDICTS - {verdict for case in CASES.values() for verdict in case.verdicts}
    assert unseen == set()


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "# tries: something\nx = 1\n",
        "# tries: something\n# verdict: FINE\n",
        "# tries: something\n# verdict: PASSED\n# limits: wall=1\n",
        "# tries: something\n# verdict: PASSED\n# unknown: 1\n",
    ],
)
def test_an_incomplete_header_is_told(text: str) -> None:
    with pytest.raises(corpus.IncompleteHeader):
        corpus.parse("some/program", text)


@pytest.mark.parametrize("name", [name for name in CASES if name not in COMPANIONS])
def test_verdict(rig: Rig, name: str) -> None:
    wrong = ""
    try:
        rig.judge(CASES[name])
    except AssertionError as error:
        wrong = str(error)
    rig.assert_untouched()
    if wrong and CASES[name].open:
        pytest.xfail(CASES[name].open)
    assert not wrong, wrong


def test_text_that_is_no_text_is_refused(rig: Rig) -> None:
    # A request whose code is two bytes of invalid UTF-8, which our clients would never send.
    channel = rig.gateway.open_channel()
    call: Callable[..., bytes] = channel.unary_unary("/codealign.api.sandbox.v1.SandboxService/Execute")
    with channel, pytest.raises(grpc.RpcError):
        call(b"\x0a\x04\x12\x02\xff\xfe", timeout=_SECONDS)
    rig.assert_sound()


def test_memory_that_no_process_holds_is_given_back(rig: Rig) -> None:
    before = resident_bytes(rig.gateway.process.pid)
    for _ in range(8):
        rig.execute([CASES["memory/sockets_inside_themselves"]] * SLOTS)
    rig.assert_sound()
    assert resident_bytes(rig.gateway.process.pid) - before < 768 * MIB


def test_the_machine_is_as_it_was(rig: Rig) -> None:
    """This must be the last test: it stops the gateway."""
    rig.assert_sound()
    rig.gateway.stop()
    deadline = time.monotonic() + 10
    while rig.host.remains() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert rig.host.remains() == []
