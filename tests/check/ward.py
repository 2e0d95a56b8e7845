"""A healthy installation that is broken, looked at, and cured by what the doctor says."""

import asyncio
import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.heart import DEADLINE, write_config
from worker.check import Finding, Limits, examine, examine_config

JOBS = """
[job.fine]
python = "tests.cli.handlers:fine"
[job.graph]
arguments = { n = "n" }
steps = { one = { sql = "double" } }
[schedule.nightly]
cron = "@daily"
job = "fine"
for_each = "clubs"
"""
_COMMAND = re.compile(r"`(worker [^`]*|select [^`]*;)`")


def bad(findings: list[Finding]) -> list[Finding]:
    """What is not as it should be."""
    return [each for each in findings if each.level in ("warning", "fault")]


class Ward:
    """One database, one worker.toml, one login.

    Attributes:
        connection: a superuser's.
        login: whom worker.toml connects as.
        limits: of the doctor.
        url: instead of this login's address of the database.
        port: of an endpoint.
        patient: a cure takes a moment.
    """

    FUNCTIONS = """
        create function double(n integer) returns integer language sql as 'select 2 * n';
        create function clubs() returns setof integer language sql as 'select 1';
    """

    def __init__(
        self, folder: Path, dsn: str, login: str, connection: asyncpg.Connection, patch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.dsn, self.login, self.connection, self.patch = folder, dsn, login, connection, patch
        self.limits = Limits()
        self.leaving = AsyncExitStack()
        self.afterwards: list[str] = []
        self.url = ""
        self.port = 0
        self.patient = False
        self.configure()

    def configure(self, jobs: str = JOBS, database: str = 'search_path = "public"', worker: str = "") -> Path:
        """Another worker.toml."""
        return write_config(self.folder, jobs, database=database, worker=worker)

    @property
    def name(self) -> str:
        """Of the database."""
        return self.dsn.partition("?")[0].rpartition("/")[2]

    async def execute(self, *statements: str) -> None:
        for statement in statements:
            await self.connection.execute(statement)

    async def look(self) -> list[Finding]:
        """All that `worker check` finds."""
        self.patch.setenv("DATABASE_URL", self.url or self.dsn.replace("postgres@", f"{self.login}@", 1))
        config, found = examine_config(self.folder / "worker.toml")
        return found if config is None else [*found, *await examine(config, self.limits)]

    async def declare(self) -> None:
        """Make the database know what worker.toml declares."""
        await self.apply("run `worker migrate`")

    async def other(self, role: str | None = None) -> asyncpg.Connection:
        """Another session, until the end."""
        connection = await asyncpg.connect(self.dsn)
        self.leaving.push_async_callback(_close, connection)
        if role:
            await connection.execute(f"set session authorization {role}")
        return connection

    async def apply(self, cure: str) -> None:
        """Do what a cure says: SQL as it stands, a verb, or SQL inside a sentence."""
        if cure.endswith(";"):
            await self._sql(cure)
            return
        (said,) = _COMMAND.findall(cure)[:1]
        if said.endswith(";"):
            await self._sql(said)
            return
        place = self.folder / "cli"
        place.mkdir(exist_ok=True)
        cli = Cli(place, self.dsn)
        cli.config = self.folder / "worker.toml"
        answer = await cli(*said.split()[1:])
        assert answer.code == 0, answer

    async def _sql(self, cure: str) -> None:
        if cure.startswith("alter system"):  # which is none for a transaction, as several statements at once are
            self.patient = True
            await self.execute(*cure.split("; "))
            return
        await self.execute(cure)

    async def becomes(self, question: str, wanted: Any, login: str | None = None) -> None:
        """Wait until new sessions answer with that: settings of a server reach them when it has reloaded."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            connection = await asyncpg.connect(self.dsn.replace("postgres@", f"{login or 'postgres'}@", 1))
            try:
                if await connection.fetchval(question) == wanted:
                    return
            finally:
                await connection.close()
            await asyncio.sleep(0.02)
        raise AssertionError(f"never {wanted!r}: {question}")

    async def leave(self) -> None:
        """Undo what is not of this database alone."""
        try:
            await self.leaving.aclose()
            for statement in self.afterwards:
                await self.execute(statement)
        finally:
            await self.connection.close()


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=DEADLINE)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
