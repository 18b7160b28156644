"""Transport over standard input and output: for a runner that the gateway itself started.

    python -S -s -P -m codealign.runner.stdio CONFIGURATION

where CONFIGURATION is `Configuration.to_json`. The end of standard input ends the process, and with it, since it is
the box's first process, the box: a gateway that dies leaves nothing behind.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import BinaryIO

from codealign.runner import frames
from codealign.runner.configuration import Configuration
from codealign.runner.session import Session
from codealign.runner.supervisor import Supervisor


def serve(configuration: Configuration, incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Works until the stream ends, or a drain has ended.

    Raises:
        BrokenStream: What comes in are no frames.
        ProtocolError: A frame that is not allowed.
        SlotLost: See `Supervisor.start`.
    """
    supervisor = Supervisor(configuration)
    supervisor.start()
    drained = threading.Event()
    session = Session(supervisor, frames.FrameWriter(outgoing).write, drained.set)
    session.hello()
    while (frame := frames.read_request(incoming)) is not None:
        session.take(frame)
        if frame.HasField("drain"):
            drained.wait()
            return


def main(argument: str) -> None:
    """Serves the gateway at the other end of standard input and output."""
    # Whatever prints by accident must not land between frames.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(Configuration.from_json(argument), sys.stdin.buffer, outgoing)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Threads of the slots may still run: the box ends all the same.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
