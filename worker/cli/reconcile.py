"""`reconcile`: progress records compared with the teams that are there, and corrected."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from worker.config import Config
    from worker.jobs.reconcile import Report, Terms

_INSTALLED = "select to_regprocedure('league.reconcile_plan(text, text, interval)') is not null"


def reconcile(
    environment: Annotated[
        str, typer.Option("--environment", metavar="NAME", help="Which one is meant; must be the configuration's.")
    ],
    *,
    execute: Annotated[bool, typer.Option("--execute", help="Make the changes; else they are only shown.")] = False,
    competition: Annotated[
        str | None, typer.Option("--competition", metavar="ID", help="Only this competition.")
    ] = None,
    analyze: Annotated[bool, typer.Option("--analyze", help="Only show what is there: the three lists.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tell each statement, and errors with a traceback.")] = False,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Compare the progress of competitions and seasons with the teams that were collected; a dry run by default.

    Exit code 0 when they agree, 1 when they differ or no teams are found.
    """
    from worker.cli.exits import NO
    from worker.cli.reach import configured, go
    from worker.cli.verdict import Refused
    from worker.jobs.reconcile import Terms

    if analyze and (execute or competition is not None):
        raise typer.BadParameter("looks at everything: without --execute and --competition", param_hint="--analyze")
    loaded = configured(config)
    if environment != loaded.environment:
        raise Refused(
            f"--environment {environment}, but {loaded.path} is for {loaded.environment}: another environment is "
            "another --config; nothing was done"
        )
    terms = Terms(execute=execute, competition=competition)
    try:
        agrees = go(_analyze(loaded, as_json) if analyze else _compare(loaded, terms, as_json, debug))
    except KeyboardInterrupt:
        print("worker: interrupted; what was not committed is rolled back", file=sys.stderr)
        raise
    except Exception:
        if debug:
            _trace()
        raise
    if not agrees:
        raise typer.Exit(NO)


async def _compare(config: "Config", terms: "Terms", as_json: bool, debug: bool) -> bool:
    from worker.cli.drift import lines
    from worker.cli.paper import put, put_json
    from worker.cli.reach import reached
    from worker.jobs.reconcile import compare

    async with reached(config) as connection:
        await _installed(connection)
        with _Bar("reconciling" if terms.execute else "comparing", debug) as bar:
            report = await _alone(compare(connection, terms, bar.told))
    if as_json:
        put_json(_value(config, report))
    else:
        for line in lines(report, config.environment):
            put(line)
    return report.in_sync


async def _analyze(config: "Config", as_json: bool) -> bool:
    from worker.cli.drift import LISTS, tables
    from worker.cli.paper import console, put_json
    from worker.cli.reach import reached
    from worker.jobs.reconcile import CALL_SECONDS

    async with reached(config) as connection:
        await _installed(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = {
                name: [dict(row) for row in await connection.fetch(call, timeout=CALL_SECONDS)]
                for name, call in LISTS.items()
            }
    if as_json:
        put_json({"environment": config.environment, **found})
        return True
    paper = console()
    for part in tables(found, paper.width):
        paper.print(part)
    return True


async def _alone(work: "Coroutine[Any, Any, Report]") -> "Report":
    """Another reconcile in the way is told as that."""
    import asyncpg

    from worker.cli.verdict import Refused

    try:
        return await work
    except asyncpg.LockNotAvailableError:
        raise Refused("another reconcile, or a lock, is in the way; nothing was changed: try again later") from None


async def _installed(connection: Any) -> None:
    from worker.cli.verdict import Refused

    if not await connection.fetchval(_INSTALLED):
        raise Refused("the reconcile is not installed here: apply sql/jobs/reconcile/*.sql (docs/systems/reconcile.md)")


def _value(config: "Config", report: "Report") -> dict[str, Any]:
    changes = [dict(row) for row in report.rows]
    return {"environment": config.environment, **report.figures(), "changes": changes}


def _trace() -> None:
    import traceback

    from worker.log import safe

    for line in traceback.format_exc().splitlines():
        print(safe(line), file=sys.stderr)


class _Bar:
    """Tells how far it is: a bar on a terminal where the set is big, a line for each statement with --debug."""

    def __init__(self, deed: str, debug: bool) -> None:
        self._deed = deed
        self._debug = debug
        self._stack = ExitStack()
        self._advance: Any = None
        self._done = 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def told(self, done: int, total: int) -> None:
        """So many competitions of so many are done."""
        from worker.cli.paper import advancing
        from worker.jobs.reconcile import BATCH

        if self._debug:
            print(f"worker: {self._deed}: {done} of {total} competitions", file=sys.stderr)
        elif total > BATCH:
            self._advance = self._advance or self._stack.enter_context(advancing(self._deed, total))
            self._advance(done - self._done)
        self._done = done
