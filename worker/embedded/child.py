"""Becomes the postmaster: `python -I -S child.py LOG UID GID PARENT PROGRAM ARGUMENT…`.

A program of its own, because what happens here must happen between fork and exec, and running Python there is unsafe
in a process with threads. UID -1 stays who it is; PARENT 0 lives on without its parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(log: str, uid: int, gid: int, parent: int, program: list[str]) -> None:
    """Change user, join the parent's fate if asked, and exec."""
    os.setsid()  # ctrl-C in the terminal is not meant for the server
    os.umask(0o077)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if parent:  # after setuid, which clears it
        die_with(parent)
    redirect(log)
    os.execv(program[0], program)


def die_with(parent: int) -> None:
    """Be shut down at once when the parent dies, however it dies. Linux only; elsewhere the server lives on."""
    if sys.platform != "linux":
        return
    # A shell's background jobs ignore it, and what they start inherits that.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent died first")


def redirect(log: str) -> None:
    """Nothing to read; everything said goes to the log, opened as the user the server runs as."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)


if __name__ == "__main__":
    become(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
