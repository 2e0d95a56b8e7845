"""A PgBouncer of its own in front of a database, for those who want a pooler in the way."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from worker.embedded import child
from worker.embedded.binaries import account

START_SECONDS = 20.0
PORT = 6432


def find() -> str | None:
    """The program, also where only root has its folder on the path."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Bouncer:
    """One PgBouncer on a unix socket; every client is let in.

    Attributes:
        dsn: the database's address through it.
    """

    def __init__(self, program: str, dsn: str, folder: Path, mode: str, size: int, **settings: str) -> None:
        self._program = program
        self._folder = folder
        url = urlsplit(dsn)
        query = parse_qs(url.query)
        host, port = query.get("host", [url.hostname or "127.0.0.1"])[0], query.get("port", [str(url.port or 5432)])[0]
        self._database, user = url.path.strip("/"), url.username or "postgres"
        self.dsn = f"postgresql://{user}@/{self._database}?host={folder}&port={PORT}"
        lines = {
            "listen_addr": "", "unix_socket_dir": str(folder), "listen_port": str(PORT), "auth_type": "any",
            "pool_mode": mode, "default_pool_size": str(size), "admin_users": user, "server_login_retry": "1",
            **settings,
        }  # fmt: skip
        named = f"[databases]\n{self._database} = host={host} port={port} user={user}\n[pgbouncer]\n"
        self._ini = folder / "pgbouncer.ini"
        self._ini.write_text(named + "".join(f"{name} = {value}\n" for name, value in lines.items()))
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        user = account()
        if user.changed:  # it refuses to run as root
            shutil.chown(self._folder, user.uid, user.gid)
        uid, gid = (user.uid, user.gid) if user.changed else (-1, -1)
        log = self._folder / "pgbouncer.log"
        become = [sys.executable, "-I", "-S", child.__file__, str(log), str(uid), str(gid), str(os.getpid())]
        process = subprocess.Popen([*become, self._program, str(self._ini)])
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no PgBouncer: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        return process

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self._folder / f".s.PGSQL.{PORT}"))
            return True
        return False

    def end(self) -> None:
        """At once: every client is cut."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def kill(self) -> None:
        """SIGKILL; `restart` brings another one."""
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        self.end()
        self.process = self._start()

    async def say(self, command: str) -> None:
        """PAUSE, RESUME, RECONNECT … on its console."""
        console = await asyncpg.connect(self.dsn.replace(f"/{self._database}?", "/pgbouncer?"), timeout=5)
        try:
            await console.execute(command, timeout=20)  # the simple protocol, which is all that the console speaks
        finally:
            await console.close(timeout=5)


@contextlib.contextmanager
def bouncer(dsn: str, mode: str = "transaction", size: int = 10, **settings: str) -> Iterator[Bouncer]:
    """A PgBouncer before the database at `dsn`; LookupError where it is not installed."""
    program = find()
    if program is None:
        raise LookupError("pgbouncer is not installed")
    with tempfile.TemporaryDirectory(prefix="bouncer-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        started = Bouncer(program, dsn, folder, mode, size, **settings)
        try:
            yield started
        finally:
            started.end()
