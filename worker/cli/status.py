"""`status`: every type and every daemon at one glance."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    import asyncpg
    from rich.console import RenderableType

    from worker.config import Config

WATCH_SECONDS = 1.0
_TYPES = (
    "type", "state", " daemons", " due", " oldest", " later", " behind key", " running", " completed", " skipped",
    " failed", " cancelled", " success", " p50", " p95",
)  # fmt: skip
_SPARE_TYPES = (
    "skipped", "cancelled", "p50", "behind key", "oldest", "later", "success", "p95", "daemons", "completed", "running",
)  # fmt: skip
_SPARE_DAEMONS = ("version", "pid", "host", "slots")
_DAEMONS = (" id", "state", "host", " pid", "version", " running", " slots", " last beat", "types")


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show every type, undeclared ones included, with its counts, and the daemons.

    Finished jobs are those of the last 24 hours.
    """
    import contextlib

    from worker.cli.paper import put_json
    from worker.cli.reach import configured, go

    if watch and as_json:
        raise typer.BadParameter("--json is one value, --watch has no end: use one of them", param_hint="--watch")
    loaded = configured(config)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # the only way it ends
            go(_watch(loaded))
        return
    found = go(_look(loaded))
    put_json(found) if as_json else _print(found)


async def _look(config: "Config") -> dict[str, Any]:
    from worker.cli.reach import reached

    async with reached(config) as connection:
        return {"environment": config.environment, **await _read(connection)}


async def _watch(config: "Config") -> None:
    import asyncio

    from rich.live import Live

    from worker.cli.paper import console
    from worker.cli.reach import reached

    async with reached(config) as connection:
        paper = console()
        with Live(console=paper, auto_refresh=False) as live:
            while True:
                page = _page({"environment": config.environment, **await _read(connection)}, paper.width)
                live.update(page, refresh=True) if paper.is_terminal else paper.print(page)
                await asyncio.sleep(WATCH_SECONDS)


async def _read(connection: "asyncpg.Connection") -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = orjson.loads(await connection.fetchval("select worker.status()"))
    return found


def _print(found: dict[str, Any]) -> None:
    from worker.cli.paper import console

    paper = console()
    paper.print(_page(found, paper.width))


def _page(found: dict[str, Any], width: int) -> "RenderableType":
    from rich.console import Group

    from worker.cli.paper import table

    types = table(_TYPES, [_type(each) for each in found["types"]], width, _SPARE_TYPES)
    daemons = table(_DAEMONS, [_daemon(each) for each in found["daemons"]], width, _SPARE_DAEMONS)
    nobody = "" if found["daemons"] else "no daemon runs"
    return Group(f"environment: {found['environment']}\n", types, "", daemons, nobody)


def _type(each: dict[str, Any]) -> tuple[object, ...]:
    rate = each["success_rate"]
    return (
        each["job_type"], _state(each), each["daemons"], each["waiting"], _seconds(each["oldest_due"]),
        each["scheduled"], each["parked"], each["running"],
        each["completed"], each["skipped"], each["failed"], each["cancelled"],
        None if rate is None else f"{rate:g} %", _seconds(each["duration_p50"]), _seconds(each["duration_p95"]),
    )  # fmt: skip


def _seconds(value: float | None) -> float | None:
    """JSON writes whole seconds as whole numbers, which would be shown without their unit."""
    return None if value is None else float(value)


def _state(each: dict[str, Any]) -> str:
    if not each["declared"]:
        return "undeclared"
    return (
        "off" if not each["enabled"] else "paused" if each["paused"] else "no daemon" if not each["daemons"] else "on"
    )


def _daemon(each: dict[str, Any]) -> tuple[object, ...]:
    about = (each["id"], each["state"], each["host"], each["pid"], each["version"], each["running"], each["slots"])
    return (*about, float(each["beat"]), ", ".join(each["types"]))
