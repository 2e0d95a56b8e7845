"""`schedule list`, `run`, `pause` and `resume`: jobs by the clock, seen and moved by operators."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    import asyncpg

    from worker.config import Config

TAKE_SECONDS = 65.0  # that a daemon is given to read the rows of for_each: as long as it may take for that itself
LOOK_SECONDS = 0.1
_LIST = "select * from worker.schedules order by name"
_ONE = "select * from worker.schedules where name = $1"
_COLUMNS = ("name", "state", "cron", "zone", "job type", "next run", "last run", " late", " jobs", "error")
_SPARE = ("zone", " late", " jobs", "last run", "job type")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]

app = typer.Typer(help="Jobs by the clock: list them, fire one now, pause and resume.", no_args_is_help=True)


@app.command("list")
def list_schedules(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the schedules: when each fires next, when it did last and how late, and what is wrong with it."""
    from worker.cli.paper import console, put, put_json, table
    from worker.cli.reach import configured, go

    found = go(_listed(configured(config)))
    if as_json:
        put_json(found)
    elif found:
        paper = console()
        paper.print(table(_COLUMNS, [_row(each) for each in found], paper.width, [name.strip() for name in _SPARE]))
    else:
        put("no schedules: worker.toml declares them, and `worker migrate` makes them known")


@app.command()
def run(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Fire a schedule now, also a paused one; its next run stays where it is.

    The rows of for_each are read by a daemon. Exit code 1 when none does within a minute, or when it fails.
    """
    from worker.cli.paper import put, put_json
    from worker.cli.reach import configured, go

    jobs, wrong = go(_fire(configured(config), name))
    if as_json:
        put_json({"name": name, "jobs": jobs, "error": wrong})
    else:
        put(wrong or f"fired {name}: {jobs} job{'' if jobs == 1 else 's'} added")
    if wrong is not None:
        raise typer.Exit(1)


@app.command()
def pause(name: Name, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Fire a schedule no more until it is resumed; runs meanwhile are left out."""
    from worker.cli.paper import put
    from worker.cli.reach import configured, go

    changed = go(_ask(configured(config), "select worker.pause_schedule($1)", name))
    put(f"paused {name}; `worker schedule resume {name}` goes on" if changed else f"{name} was paused already")


@app.command()
def resume(name: Name, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """End the pause of a schedule."""
    from worker.cli.paper import put
    from worker.cli.reach import configured, go

    changed = go(_ask(configured(config), "select worker.resume_schedule($1)", name))
    put(f"resumed {name}" if changed else f"{name} was not paused")


async def _ask(config: "Config", question: str, name: str) -> Any:
    from worker.cli.reach import reached

    async with reached(config) as connection:
        return await connection.fetchval(question, name)


async def _listed(config: "Config") -> list[dict[str, Any]]:
    from worker.cli.reach import reached

    async with reached(config) as connection:
        return [dict(row) for row in await connection.fetch(_LIST)]


async def _fire(config: "Config", name: str) -> tuple[int | None, str | None]:
    """How many jobs were added, and what went wrong."""
    from worker.cli.reach import reached

    async with reached(config) as connection:
        jobs = await connection.fetchval("select worker.run_schedule($1)", name)
        return (jobs, None) if jobs is not None else await _taken(connection, name)


async def _taken(connection: "asyncpg.Connection", name: str) -> tuple[int | None, str | None]:
    import asyncio

    try:
        async with asyncio.timeout(TAKE_SECONDS):
            while True:
                row = await connection.fetchrow(_ONE, name)
                assert row is not None
                if row["asked_at"] is None:
                    return (None, row["error"]) if row["error"] else (row["last_jobs"], None)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return None, f"no daemon has fired {name} so far; one that declares it will when it runs"


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    return (
        each["name"], each["state"], each["cron"], each["zone"], each["job_type"],
        _instant(each["next_at"]), _instant(each["last_at"]), each["lateness"], each["last_jobs"], each["error"],
    )  # fmt: skip


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%SZ}"
