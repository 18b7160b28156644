"""Frames over a byte stream: a length, unsigned 32-bit big-endian, then one serialised message."""

from __future__ import annotations

import struct
import threading
from typing import BinaryIO

from codealign.api.runner.v1 import runner_pb2

_LENGTH = struct.Struct(">I")
FRAME_LIMIT = 128 * 1024 * 1024
"""Bytes. More is a broken stream, not a message."""


class BrokenStream(Exception):
    """The stream ended inside a frame, or holds no frames."""


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if data and len(data) < size:
        raise BrokenStream(f"the stream ended after {len(data)} of {size} bytes")
    return data


def read_request(stream: BinaryIO) -> runner_pb2.AttachRequest | None:
    """The next frame from the gateway, or None at the end of the stream.

    Raises:
        BrokenStream: See there.
    """
    header = _exactly(stream, _LENGTH.size)
    if not header:
        return None
    (size,) = _LENGTH.unpack(header)
    if size > FRAME_LIMIT:
        raise BrokenStream(f"a frame of {size} bytes")
    body = _exactly(stream, size)
    if len(body) < size:
        raise BrokenStream("the stream ended before a frame's body")
    return runner_pb2.AttachRequest.FromString(body)


class FrameWriter:
    """Writes frames to the gateway from several threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, message: runner_pb2.AttachResponse) -> None:
        """One frame, flushed."""
        body = message.SerializeToString()
        with self._lock:
            self._stream.write(_LENGTH.pack(len(body)) + body)
            self._stream.flush()
