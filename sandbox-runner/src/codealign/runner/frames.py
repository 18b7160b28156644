"""Frames over a byte stream: an unsigned 32-bit big-endian length, then a serialised message."""

from __future__ import annotations

import struct
import threading
from typing import BinaryIO

from codealign.api.runner.v1 import runner_pb2

_LENGTH = struct.Struct(">I")
FRAME_LIMIT = 128 * 1024 * 1024
"""Maximum frame size in bytes. A larger length means the stream is corrupt."""


class BrokenStream(Exception):
    """The stream ended inside a frame or does not contain frames."""


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if data and len(data) < size:
        raise BrokenStream(f"the stream ended after {len(data)} of {size} bytes")
    return data


def read_request(stream: BinaryIO) -> runner_pb2.AttachRequest | None:
    """Return the next frame from the gateway, or None at the end of the stream.

    Raises:
        BrokenStream: The stream is truncated or a frame exceeds FRAME_LIMIT.
    """
    header = _exactly(stream, _LENGTH.size)
    if not header:
        return None
    (size,) = _LENGTH.unpack(header)
    if size > FRAME_LIMIT:
        raise BrokenStream(f"a frame of {size} bytes exceeds the limit")
    body = _exactly(stream, size)
    if len(body) < size:
        raise BrokenStream("the stream ended before the body of a frame")
    return runner_pb2.AttachRequest.FromString(body)


class FrameWriter:
    """Writes frames to the gateway from several threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, message: runner_pb2.AttachResponse) -> None:
        """Write one frame and flush."""
        body = message.SerializeToString()
        with self._lock:
            self._stream.write(_LENGTH.pack(len(body)) + body)
            self._stream.flush()
