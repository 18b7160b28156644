"""Transport over standard input and output, for a runner started by the gateway.

    python -S -s -P -m codealign.runner.stdio CONFIGURATION

where CONFIGURATION is the output of `Configuration.to_json`. End of input ends the process. Since it is the sandbox's
first process, the sandbox ends with it, so a gateway that dies leaves nothing behind.
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
    """Serve until the stream ends or a drain has finished.

    Raises:
        BrokenStream: The input does not consist of frames.
        ProtocolError: A frame is not allowed.
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
    """Serve the gateway on standard input and output."""
    # Accidental prints must not end up between frames.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(Configuration.from_json(argument), sys.stdin.buffer, outgoing)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Slot threads may still be running; end the sandbox anyway.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
