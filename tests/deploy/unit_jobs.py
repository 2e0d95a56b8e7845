"""What jobs under the unit try to do: what they need, and what nobody needs."""

import asyncio
import ctypes
import os
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLONE_NEWUSER = 0x10000000
UCI = "uci\nsetoption name Threads value 2\nucinewgame\nposition startpos\ngo depth 6\n"


async def work(context: Any) -> dict[str, Any]:
    """What came of each, by name."""
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "child": await context.to_process(of_a_child, 10),
        "engine": await asyncio.to_thread(attempt, engine),
        "program": attempt(lambda: subprocess.check_output(["/bin/echo", "hi"], text=True)),
        "resolver": attempt(lambda: socket.getaddrinfo("localhost", 80)[0][4][1]),
        "certificates": attempt(lambda: bool(ssl.create_default_context().get_ca_certs())),
        "tmp": attempt(lambda: len(tempfile.TemporaryDirectory().name) > 0),
        "callback": attempt(ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)),
        "secret_in_environment": "DATABASE_URL" in os.environ,
        "write": attempt(lambda: Path("/etc/job-queue-worker/x").write_text("x")),
        "write_opt": attempt(lambda: Path("/opt/job-queue-worker/x").write_text("x")),
        "home": attempt(lambda: list(Path("/root").iterdir())),
        "secrets_folder": attempt(lambda: list(Path("/etc/job-queue-worker/secrets").iterdir())),
        "process_one": attempt(lambda: Path("/proc/1").exists()),
        "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).fileno()),
        "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "namespace": libc.unshare(CLONE_NEWUSER),
        "realtime": attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    }


def of_a_child(number: int) -> list[object]:
    """Of a child process: it works, steps back, and offers itself first to the kernel that lacks memory."""
    return [sum(range(number)), os.nice(0), int(Path("/proc/self/oom_score_adj").read_text())]


def engine() -> bool:
    """Stockfish with two threads."""
    with subprocess.Popen(["/usr/games/stockfish"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as said:
        assert said.stdin is not None
        assert said.stdout is not None
        said.stdin.write(UCI)
        said.stdin.flush()
        found = any(line.startswith("bestmove") for line in iter(said.stdout.readline, ""))
        said.stdin.write("quit\n")
        said.stdin.flush()
    return found


def attempt(what: Callable[[], object]) -> object:
    """What it gives, or the number of the error that it raises."""
    try:
        return what()
    except OSError as error:
        return f"error {error.errno}"
