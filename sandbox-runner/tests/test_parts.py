"""Small parts: frames, pipes, /proc, and the system-call filter."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import time

import pytest

from codealign.api.runner.v1 import runner_pb2
from codealign.runner import frames, seccomp, streams, watch


def test_a_frame_comes_back() -> None:
    buffer = io.BytesIO()
    frames.FrameWriter(buffer).write(runner_pb2.AttachResponse(outcome=runner_pb2.Outcome(id=7)))
    (size,) = struct.unpack(">I", buffer.getvalue()[:4])
    assert size == len(buffer.getvalue()) - 4
    request = runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=3)).SerializeToString()
    stream = io.BytesIO(struct.pack(">I", len(request)) + request)
    assert frames.read_request(stream) == runner_pb2.AttachRequest(cancel=runner_pb2.Cancel(id=3))
    assert frames.read_request(stream) is None


@pytest.mark.parametrize("data", [b"\0\0", b"\0\0\0\x05ab", b"\0\0\0\x05", b"\xff\xff\xff\xff"])
def test_a_broken_stream_is_told(data: bytes) -> None:
    with pytest.raises(frames.BrokenStream):
        frames.read_request(io.BytesIO(data))


def test_a_drain_keeps_the_first_bytes_and_counts_all() -> None:
    drain = streams.Drain(keep=4)
    os.write(drain.program_end, b"abcdefgh")
    os.close(drain.program_end)
    drain.empty()
    assert (bytes(drain.kept), drain.total, drain.open) == (b"abcd", 8, False)
    drain.close()


def test_the_pipe_of_a_program_that_writes_much_is_enlarged() -> None:
    drain = streams.Drain(keep=4)
    os.set_blocking(drain.program_end, False)
    written = 0
    while written < 400_000:
        written += os.write(drain.program_end, b"x" * 60_000)
        drain.read()
    assert os.write(drain.program_end, b"x" * 500_000) == 500_000
    drain.empty()
    assert drain.total == written + 500_000
    os.close(drain.program_end)
    drain.close()


def test_a_feed_goes_on_where_the_pipe_was_full_and_survives_a_closed_reader() -> None:
    feed = streams.Feed(b"x" * 200_000)
    assert feed.open
    received = os.read(feed.program_end, 200_000)
    feed.write()
    received += os.read(feed.program_end, 200_000)
    assert set(received) == {ord("x")}
    os.close(feed.program_end)
    feed.write()
    assert not feed.open


def test_usage_is_of_the_whole_tree() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            alone, both = watch.usage(process.pid, 0, 60), watch.usage(os.getpid(), 0, 60)
            assert alone.threads == 1
            assert both.threads > alone.threads
            assert both.resident_bytes > alone.resident_bytes > 0
            assert watch.usage(process.pid, 1 << 40, 60).resident_bytes == 0
        finally:
            process.kill()


def test_no_more_processor_time_is_used_than_there_was() -> None:
    begun = time.process_time()
    while time.process_time() - begun < 0.1:
        pass
    assert watch.usage(os.getpid(), 0, 1e6).cpu_seconds >= 0.1
    assert watch.usage(os.getpid(), 0, 0.001).cpu_seconds == 0.001 * (os.cpu_count() or 1)


ALLOWED, REFUSED, ABSENT, KILLED = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def decided(machine: str, number: int, arguments: tuple[int, ...] = (), architecture: int | None = None) -> int:
    """Return what the filter decides, as the kernel evaluates it."""
    program = seccomp.filter_program(machine)
    assert len(program) % 8 == 0
    lines = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    six = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", number, architecture or AUDIT[machine], 0, *six)
    at = loaded = 0
    for _ in range(64):
        code, on_true, on_false, value = lines[at]
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, value)
            case 0x06:
                return int(value)
            case _:
                holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
                at += on_true if holds else on_false
    raise AssertionError("the filter takes too many steps")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_is_listed_and_allows_the_rest(machine: str) -> None:
    refused, absent = set(seccomp._DENIED[machine].values()), set(seccomp._ABSENT[machine].values())
    for number in range(600):
        expected = REFUSED if number in refused else ABSENT if number in absent else ALLOWED
        assert decided(machine, number) == expected, number
        assert decided(machine, number, architecture=0x40000003) == KILLED


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_looks_at_arguments(machine: str) -> None:
    clone, fcntl, setsockopt = (each[machine] for each in (seccomp._CLONE, seccomp._FCNTL, seccomp._SETSOCKOPT))
    assert decided(machine, clone, (0x01200011,)) == ALLOWED
    for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decided(machine, clone, (flag | 0x11,)) == REFUSED
    assert decided(machine, fcntl, (0, 1031)) == REFUSED
    assert decided(machine, fcntl, (0, 1032)) == ALLOWED
    for option in range(64):
        assert decided(machine, setsockopt, (3, 1, option)) == (REFUSED if option in (7, 8, 32, 33) else ALLOWED)
        assert decided(machine, setsockopt, (3, 6, option)) == ALLOWED


def test_the_filter_knows_no_32_bit_numbers() -> None:
    assert decided("x86_64", 0x40000000 | 59) == ABSENT


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match="riscv64"):
        seccomp.filter_program("riscv64")
