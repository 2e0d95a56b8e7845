"""One server's life: made, started or attached to, stopped."""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from worker.embedded import child
from worker.embedded.binaries import account, checked, environment, find_prefix, major_of, reachable, run, version_of
from worker.embedded.folders import own, socket_folder
from worker.embedded.postmaster import Postmaster, alive, read
from worker.embedded.waits import locked, until
from worker.errors import EmbeddedError

START_SECONDS = 60.0
STOP_SECONDS = 60.0
PORT = 5432
SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
Mode = Literal["fast", "immediate"]


def _quiet(_: str) -> None:
    """Progress for whom it does not interest."""


class Embedded:
    """A private server that runs. Made by `Embedded.start`, or `start`, which is the same."""

    def __init__(self, data: Path, prefix: Path, settings: Mapping[str, str], tcp_port: int | None) -> None:
        self.data = data
        self.prefix = prefix
        self.version = version_of(prefix)
        self.attached = False  # somebody else had started it
        self._account = account()
        self._tcp_port = tcp_port
        self._settings = {
            "unix_socket_permissions": "0700",
            **settings,
            "listen_addresses": "127.0.0.1" if tcp_port else "",
            "port": str(tcp_port or PORT),
            "unix_socket_directories": str(socket_folder(data, tcp_port or PORT, self._account)),
        }
        self._die_with_parent = False
        self._say: Callable[[str], None] = _quiet
        self._cluster = data / "cluster"
        self._log = data / "server.log"

    @classmethod
    def start(
        cls,
        data: Path,
        *,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = False,
        tcp_port: int | None = None,
        prefix: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> "Embedded":
        """Start the server that lives in the folder `data`, or attach to it when it runs already.

        The folder is made if need be, and is the server's alone: its cluster, its socket, its log. `settings` are
        those of postgresql.conf; they hold for a start, not for an attach. With `die_with_parent` the server ends
        when the calling thread does, however it ends (Linux). `tcp_port` listens on 127.0.0.1 as well, to whoever
        comes: there are no passwords. `prefix` names the binaries, else `find_prefix` does. `progress` is told in a
        line each what takes time.
        """
        place, user = Path(os.path.abspath(data)), account()  # noqa: PTH100, links stay: they may shorten the path
        own(place, user)
        server = cls(place, reachable(checked(prefix) if prefix else find_prefix(), user), settings or {}, tcp_port)
        server._die_with_parent, server._say = die_with_parent, progress or _quiet
        server._begin()
        return server

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        found = read(self._cluster)
        if not found:
            raise EmbeddedError(f"no server runs in {self.data}")
        return found.pid

    def dsn(self, database: str = "postgres") -> str:
        """The address for asyncpg and psql: the superuser, by the unix socket."""
        folder, port = self._settings["unix_socket_directories"], self._settings["port"]
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(folder)}&port={port}"

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it, whoever started it. `fast` ends its connections, `immediate` is a crash. Twice is no error."""
        with locked(self.data / "lock"):
            self._end(mode)

    def restart(self, mode: Mode = "fast") -> None:
        """Stop it and start it again, at the same address and with the settings it was started with here."""
        with locked(self.data / "lock"):
            self._end(mode)
            self._launch()

    def _begin(self) -> None:
        """All under the lock: of several starters at once one starts, the others attach."""
        with locked(self.data / "lock"):
            if not self._cluster.is_dir():
                self._make()
            self._refuse_other_version()
            self.attached = self._attach()
            if not self.attached:
                self._launch()

    def _make(self) -> None:
        """Made beside its place, then renamed: a half-made cluster is never taken for one."""
        self._say(f"creating a PostgreSQL {self.version} cluster in {self.data}")
        half = self.data / "cluster.new"
        if half.exists():
            shutil.rmtree(half)
        command = [str(self.prefix / "bin/initdb"), f"--pgdata={half}", "--username=postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        if major_of(self.version) >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        run(command, self._account)
        half.rename(self._cluster)

    def _refuse_other_version(self) -> None:
        made = (self._cluster / "PG_VERSION").read_text().strip()
        if made != str(major_of(self.version)):
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {made}, but the binaries in {self.prefix} are {self.version}: "
                f"set WORKER_PG_PREFIX to a PostgreSQL {made}, or remove the folder to begin anew"
            )

    def _attach(self) -> bool:
        """Whether it runs already; if its starter died half-way, it is waited for."""
        found = read(self._cluster)
        if not found or not alive(found.pid) or (found.ready and not found.answers()):
            return False  # the last: the pid of one that was killed belongs to somebody else by now
        try:
            self._use(self._await_ready(found.pid))
        except _Ended:
            return False
        return True

    def _use(self, found: Postmaster) -> None:
        """Take over the address of the one that runs."""
        if self._tcp_port and (found.port, found.addresses) != (self._tcp_port, "127.0.0.1"):
            raise EmbeddedError(f"a server without TCP port {self._tcp_port} runs in {self.data}: stop it first")
        self._settings["listen_addresses"] = found.addresses
        self._settings["port"] = str(found.port)
        self._settings["unix_socket_directories"] = found.sockets

    def _launch(self) -> None:
        """Start a postmaster; again and again while backends of a killed one still hold its memory."""
        self._say(f"starting PostgreSQL {self.version}")
        for _ in until(START_SECONDS, f"backends of a killed server still run in {self.data}"):
            begun = self._log.stat().st_size if self._log.exists() else 0
            try:
                self._await_ready(self._spawn())
                break
            except _Ended:
                said = self._said_since(begun)
                if "still in use" not in said:
                    raise EmbeddedError(f"the server in {self.data} did not start: {said}") from None

    def _spawn(self) -> int:
        uid, gid = (self._account.uid, self._account.gid) if self._account.changed else (-1, -1)
        parent = os.getpid() if self._die_with_parent else 0
        become = [sys.executable, "-I", "-S", child.__file__, str(self._log), str(uid), str(gid), str(parent)]
        command = [str(self.prefix / "bin/postgres"), "-D", str(self._cluster)]
        command += [f"--{name}={value}" for name, value in self._settings.items()]
        # not Popen, which warns when it is dropped while its process lives on, as a server is meant to
        return os.posix_spawn(sys.executable, [*become, *command], environment())

    def _await_ready(self, pid: int) -> Postmaster:
        for _ in until(START_SECONDS, f"the server in {self.data} is not ready; see {self._log}"):
            if not alive(pid):
                raise _Ended
            found = read(self._cluster)
            if found and found.pid == pid and found.ready:
                return found
        raise AssertionError("until() raises at its deadline")

    def _end(self, mode: Mode) -> None:
        found = read(self._cluster)
        if not found or not alive(found.pid) or not found.answers():
            return
        os.kill(found.pid, SIGNALS[mode])
        for _ in until(STOP_SECONDS, f"the server in {self.data} (process {found.pid}) does not stop"):
            now = read(self._cluster)  # its file goes last; the process may stay a zombie of whoever started it
            if not now or now.pid != found.pid or not alive(found.pid):
                break

    def _said_since(self, begun: int) -> str:
        with contextlib.suppress(FileNotFoundError), self._log.open(errors="replace") as log:
            log.seek(begun)
            return log.read().strip() or "it said nothing"
        return "it said nothing"


class _Ended(Exception):
    """The process ended while it was waited for."""


start = Embedded.start
