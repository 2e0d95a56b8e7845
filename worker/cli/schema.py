"""`migrate`: the schema brought up to this release."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import DEFAULT_CONFIG, ConfigPath

if TYPE_CHECKING:
    from worker.config import Config


def migrate(
    show: Annotated[bool, typer.Option("--print", help="Print the SQL that would be run; change nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Apply functions, views and rights even where nothing is new.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Bring the database's schema up to this release and declare the job types and schedules of the configuration.

    Safe to repeat, and to run by several at once. Finds the way past a pooler by database.direct_url. A schema of a
    later release that serves this one stays as it is.
    """
    from worker.cli.reach import configured, go

    loaded = configured(config)
    go(_print(loaded, again) if show else _migrate(loaded, again))


async def _print(config: "Config", again: bool) -> None:
    import sys

    import asyncpg
    import orjson

    from worker import migrations
    from worker.cli.reach import address, answering
    from worker.cli.script import script

    url = address(config, direct=True)
    await answering(url)
    connection = await asyncpg.connect(url, timeout=10, command_timeout=30)
    try:
        pending = await migrations.pending(connection, again)
    finally:
        await connection.close(timeout=5)
    types, schedules = orjson.dumps(config.declarations()).decode(), orjson.dumps(config.timed()).decode()
    whole = script(
        pending, migrations.files("functions"),
        ring=config.worker.wake == "ring", types=types, schedules=schedules, names=config.job,
    )  # fmt: skip
    sys.stdout.write(whole)


async def _migrate(config: "Config", again: bool) -> None:
    import asyncpg
    import orjson

    from worker import migrations
    from worker.cli.paper import put
    from worker.cli.reach import address, answering
    from worker.cli.verdict import Refused
    from worker.schedule import work_out
    from worker.timetable import Timetable
    from worker.way import explore

    url = address(config, direct=True)
    await answering(url)
    if not (await explore(url)).keeps:
        raise Refused("a transaction pooler is on the way, where migrations cannot lock: set database.direct_url")
    applied = await migrations.migrate(url, lambda name: put(f"applied {name}"), again=again)
    if await migrations.set_ring(url, config.worker.wake == "ring"):
        put(f"worker.wake is {config.worker.wake} now")
    connection = await asyncpg.connect(url, timeout=10)
    try:
        declarations = orjson.dumps(config.declarations()).decode()
        changes = await connection.fetch("select * from worker.declare($1::jsonb)", declarations, timeout=30)
        timetable = Timetable(connection, config.scheduled)
        timed = await timetable.declare(config.timed(), list(config.job))
        await work_out(timetable)
        later = await migrations.later(connection)
    finally:
        await connection.close(timeout=5)
    for row in changes:
        put(f"{row['change']} job type {row['name']}")
    for name, change in timed:
        put(f"{change} schedule {name}")
    if later:
        put("the schema is of a later release and serves this one; it stays as it is")
    elif not applied and not changes and not timed:
        put("the schema is up to date")
