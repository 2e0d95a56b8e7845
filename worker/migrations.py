"""The files of sql/ applied to a database: numbered ones once, functions whenever their text changed.

Each numbered file is one transaction. All function files are one transaction together, so that a reader never meets
half of them.

A schema may be of a later edition than this release and still serve it (functions/05_edition.sql): so daemons of two
releases work side by side, and the older one may come back.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import tenacity

from worker import edition
from worker.errors import SchemaBusy, SchemaError
from worker.migrating import LOCK_SECONDS, alone, under_way

LOOK_SECONDS = 0.2
FILE_SECONDS = 300.0

_RECORD = (
    "insert into worker.migration (name, digest) values ($1, $2)"
    " on conflict (name) do update set digest = excluded.digest, applied_at = clock_timestamp()"
)


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One file of sql/, named relative to it (`migrations/0001_roles.sql`)."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def numbered(self) -> bool:
        return self.name.startswith("migrations/")


def sql_root() -> Path:
    """The folder of SQL files: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "_sql"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "sql"


def files(folder: str) -> list[SqlFile]:
    """The SQL files of one folder of sql/, in the order of their names."""
    root = sql_root()
    found = sorted((root / folder).glob("*.sql"))
    return [SqlFile(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in found]


def ours() -> edition.Edition:
    """The edition of this release."""
    return next(filter(None, (edition.told(file.text) for file in files("functions"))), edition.NONE)


async def migrate(dsn: str, progress: Callable[[str], None] = lambda line: None, *, again: bool = False) -> list[str]:
    """Bring the schema `worker` up to this release and answer with the names of the files applied.

    A later schema that serves this release stays as it is. `again`: functions are applied even where none is new.

    Raises:
        SchemaError: a file failed (named with line and SQLSTATE), an applied file was edited, or the schema is later
            and does not serve this release.
        SchemaBusy: another session is in the way, and stays there.
    """
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=FILE_SECONDS)
    try:
        (holder,) = files("migrating")
        async with alone(connection, holder.text):
            return await _apply_pending(connection, progress, again)
    finally:
        await connection.close(timeout=5)


async def set_ring(dsn: str, rings: bool) -> bool:
    """Let inserts ring, or not (`worker.wake`); answers with whether that changed anything."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=FILE_SECONDS)
    try:
        return bool(await connection.fetchval("select worker.set_ring($1)", rings))
    finally:
        await connection.close(timeout=5)


async def verify(connection: asyncpg.Connection, patience: float = 0.0) -> None:
    """Check that the schema is the one this release needs, or a later one that serves it.

    Args:
        patience: seconds to wait while somebody migrates.

    Raises:
        SchemaError: not there, too old (says what is missing), too new, or edited.
    """
    end, settled = time.monotonic() + patience, not patience
    while True:
        try:
            return await _look(connection)
        except SchemaError:
            if settled or time.monotonic() > end:
                raise
        settled = not await under_way(connection)  # then one more look, as it may have ended just now
        await asyncio.sleep(0 if settled else LOOK_SECONDS)


async def pending(connection: asyncpg.Connection, again: bool = False) -> list[SqlFile]:
    """The files that `migrate` would apply; raises SchemaError as it does."""
    applied = await _applied(connection)
    return [] if await later(connection) else _pending(applied) or (files("functions") if again else [])


async def later(connection: asyncpg.Connection) -> bool:
    """Whether the schema is of a later edition than this release; raises SchemaError when it does not serve it."""
    return (await edition.found(connection)).follows(ours())


async def install(connection: asyncpg.Connection, system: str) -> list[str]:
    """Apply the SQL of one shipped system (a folder of sql/jobs), which may be applied again at any time."""
    wanted = files(f"jobs/{system}")
    if not wanted:
        raise SchemaError(f"there is no shipped system named {system!r}")
    async with connection.transaction():
        for file in wanted:
            await _execute(connection, file)
    return [file.name for file in wanted]


async def _apply_pending(connection: asyncpg.Connection, progress: Callable[[str], None], again: bool) -> list[str]:
    missing = await pending(connection, again)
    for file in missing:
        if file.numbered:
            async with connection.transaction():
                await _execute(connection, file)
                await _record(connection, file)
            progress(file.name)
    if missing:
        await _replace_functions(connection)
        progress("functions")
    return [file.name for file in missing]


async def _look(connection: asyncpg.Connection) -> None:
    applied = await _applied(connection)  # before the edition, which a migration that ends meanwhile changes last
    if not applied:
        raise SchemaError("the database has no schema worker; run `worker migrate`")
    try:
        missing = _pending(applied)
    except SchemaError:
        if await later(connection):
            return
        raise
    if missing and not await later(connection):
        raise SchemaError(f"the schema is too old: {missing[0].name} is not applied; run `worker migrate`")


async def _replace_functions(connection: asyncpg.Connection) -> None:
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(asyncpg.LockNotAvailableError),
            wait=tenacity.wait_fixed(1),
            stop=tenacity.stop_after_delay(LOCK_SECONDS),
            reraise=True,
        ):
            with attempt:
                await _replace_functions_once(connection)
    except asyncpg.LockNotAvailableError:
        raise SchemaBusy("somebody's open transaction keeps worker.job_queue locked; end it and repeat") from None


async def _replace_functions_once(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute("set local role worker_owner")
        # The strongest lock first: one that grows would deadlock with claims and producers, whose locks grow too. And
        # not for long: whoever comes after us waits behind us.
        await connection.execute("set local lock_timeout = '1s'")
        await connection.execute("lock table worker.job_queue, worker.job_step in access exclusive mode")
        await connection.execute("set local lock_timeout = 0")
        for file in files("functions"):
            await _execute(connection, file)
            await _record(connection, file)


def _pending(applied: dict[str, str]) -> list[SqlFile]:
    known = files("migrations") + files("functions")
    _refuse_foreign(applied, {file.name for file in known})
    for file in known:
        if file.numbered and applied.get(file.name, file.digest) != file.digest:
            raise SchemaError(f"{file.name} was edited after it was applied; numbered files never change")
    return [file for file in known if applied.get(file.name) != file.digest]


def _refuse_foreign(applied: Iterable[str], known: set[str]) -> None:
    newer = sorted(name for name in applied if name.startswith("migrations/") and name not in known)
    if newer:
        raise SchemaError(f"the schema is too new: {newer[-1]} is applied, which this release does not know")


async def _applied(connection: asyncpg.Connection) -> dict[str, str]:
    if await connection.fetchval("select to_regclass('worker.migration')") is None:
        return {}
    rows = await connection.fetch("select name, digest from worker.migration")
    return {row["name"]: row["digest"] for row in rows}


async def _record(connection: asyncpg.Connection, file: SqlFile) -> None:
    await connection.execute(_RECORD, file.name, file.digest)


async def _execute(connection: asyncpg.Connection, file: SqlFile) -> None:
    try:
        await connection.execute(file.text)
    except asyncpg.PostgresError as error:
        raise SchemaError(f"sql/{file.name}{_line(file, error)}: {error.sqlstate} {error}") from error


def _line(file: SqlFile, error: asyncpg.PostgresError) -> str:
    position = getattr(error, "position", None)
    return f":{file.text[: int(position) - 1].count(chr(10)) + 1}" if position else ""
