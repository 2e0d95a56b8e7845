"""Process 1 of a container: it stays out of the way, passes signals on and reaps; the command is its child.

PID 1 gets no signal that it does not handle, and inherits every orphan. A daemon that reaped them itself would take the
exit statuses of its handlers' own subprocesses.
"""

import os
import signal
import sys

_SI_KERNEL = 0x80  # nobody sent it: the terminal tells its whole foreground group, the child included


def step_aside() -> None:
    """Where this process is PID 1: go on in a child, and end as it ends."""
    if sys.platform != "linux" or os.getpid() != 1:
        return
    passed = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        said = signal.sigwaitinfo({*passed, signal.SIGCHLD})
        if said.si_signo != signal.SIGCHLD:
            if said.si_code != _SI_KERNEL:
                os.kill(child, said.si_signo)
        elif (code := _reaped(child)) is not None:
            os._exit(code)


def _reaped(child: int) -> int | None:
    """Reap whatever has ended; answers with the child's exit code, as a shell would tell it, once it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
