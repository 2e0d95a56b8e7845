"""Runs calls for the daemon, one after the other: `python -P child.py SOCKET PARENT`, a program of its own.

Only the standard library here: the rest is imported by the calls themselves, along the daemon's own sys.path.
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

LENGTH = struct.Struct("!Q")  # before each frame
RETURNED, RAISED = "returned", "raised"
NICENESS = 5  # the loop of the daemon goes first
OOM_SCORE = "500"  # of -1000 to 1000: short of memory, the kernel ends a child before the daemon
PR_SET_PDEATHSIG = 1


class Ended(BaseException):
    """SIGTERM: the `finally` blocks of a call run, then the process ends."""


def main(handle: int, parent: int) -> None:
    """Answer until the daemon says no more, or dies."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to hear
    signal.signal(signal.SIGTERM, _end)
    faulthandler.enable()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    os.set_inheritable(handle, False)
    channel = socket.socket(fileno=handle)
    sys.path[:] = pickle.loads(_frame(channel))  # noqa: S301, the daemon's own
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, requests), daemon=True).start()
    try:
        while True:
            answer = answered(requests.get())
            channel.sendall(LENGTH.pack(len(answer)) + answer)
    except Ended:
        return


def die_with(parent: int) -> None:
    """Be killed when the parent dies, however it dies; what is not Linux notices by the end of the socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent died first")


def answered(request: bytes) -> bytes:
    """Make the call; never raises but for `Ended`."""
    try:
        function, args, named = pickle.loads(request)  # noqa: S301, the daemon's own
        value = function(*args, **named)
    except Ended:
        raise
    except BaseException as error:
        return _raised(error)
    try:
        return pickle.dumps((RETURNED, value))
    except Exception as error:
        return _raised(TypeError(f"what it returned cannot be pickled: {type(error).__name__}: {error}"))


def _raised(error: BaseException) -> bytes:
    told = "".join(traceback.format_exception(error))
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):
            packed = pickle.dumps((RAISED, error, told))
            pickle.loads(packed)  # noqa: S301, some can be packed only: their arguments are not their constructor's
            return packed
    plain = RuntimeError("".join(traceback.format_exception_only(error)).strip())
    return pickle.dumps((RAISED, plain, told))


def _listen(channel: socket.socket, requests: "queue.SimpleQueue[bytes]") -> None:
    # A thread, for while a call computes nobody else would see that the daemon is gone.
    try:
        while True:
            requests.put(_frame(channel))
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _frame(channel: socket.socket) -> bytes:
    return _exactly(channel, LENGTH.unpack(_exactly(channel, LENGTH.size))[0])


def _exactly(channel: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        if not (part := channel.recv(min(size - len(got), 1 << 20))):
            raise EOFError
        got += part
    return bytes(got)


def _end(*_about: Any) -> None:
    raise Ended


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
