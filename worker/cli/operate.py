"""`retry`, `pause`, `resume` and `explain`: what operators do when something went wrong."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes

if TYPE_CHECKING:
    import asyncpg

    from worker.config import Config

PAGE = 500
_COUNT = "select count(*) from worker.job_queue where trouble and status = 'failed' and job_type = $1"
JobType = Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")]


def retry(
    job: Annotated[int | None, typer.Argument(metavar="[ID]", help="The job.")] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All failed jobs of --type instead of one job.")] = False,
    job_type: Annotated[str | None, typer.Option("--type", help="With --failed: the type.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished steps again, too.")] = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Run a failed or cancelled job again, or all failed ones of a type; finished steps are kept.

    Asks first. Exit code 1 when a job could not be retried because another holds its unique key.
    """
    from worker.cli.reach import configured, go

    if (job is None) == (not failed) or failed == (job_type is None):
        raise typer.BadParameter("give either ID, or --failed and --type", param_hint="ID")
    loaded = configured(config)
    if job_type is not None:
        done = go(_retry_failed(loaded, job_type, fresh, yes))
    else:
        assert job is not None
        done = go(_retry(loaded, job, fresh, yes))
    if not done:
        raise typer.Exit(1)


def pause(job_type: JobType, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Claim no more jobs of a type; running ones go on."""
    from worker.cli.paper import put
    from worker.cli.reach import configured, go

    changed = go(_ask(configured(config), "select worker.pause($1)", job_type))
    put(f"paused {job_type}; `worker resume {job_type}` goes on" if changed else f"{job_type} was paused already")


def resume(job_type: JobType, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """End the pause of a type."""
    from worker.cli.paper import put
    from worker.cli.reach import configured, go

    changed = go(_ask(configured(config), "select worker.resume($1)", job_type))
    put(f"resumed {job_type}" if changed else f"{job_type} was not paused")


def explain(
    job: Annotated[int, typer.Argument(metavar="ID", help="The job.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Say why a job runs, waits or has ended: a code and a sentence."""
    from worker.cli.paper import put, put_json
    from worker.cli.reach import configured, go

    code, sentence = go(_explain(configured(config), job))
    if as_json:
        put_json({"id": job, "code": code, "sentence": sentence})
    else:
        put(f"job {job}: {code}\n{sentence}")


async def _ask(config: "Config", question: str, *arguments: object) -> Any:
    from worker.cli.reach import reached

    async with reached(config) as connection:
        return await connection.fetchval(question, *arguments)


async def _explain(config: "Config", job: int) -> tuple[str, str]:
    from worker.cli.reach import reached
    from worker.cli.verdict import Refused

    async with reached(config) as connection:
        if not await connection.fetchval("select exists (select from worker.job_queue where id = $1)", job):
            raise Refused(f"there is no job {job}: `worker jobs` lists them")
        row = await connection.fetchrow("select code, sentence from worker.explain_job($1)", job)
    assert row is not None
    return row["code"], row["sentence"]


async def _retry(config: "Config", job: int, fresh: bool, yes: bool) -> bool:
    import asyncpg

    from worker.cli.ask import agreed
    from worker.cli.paper import put
    from worker.cli.reach import reached
    from worker.cli.verdict import Refused, say

    async with reached(config) as connection:
        row = await connection.fetchrow("select status, job_type from worker.jobs where id = $1", job)
        if row is None:
            raise Refused(f"there is no job {job}: `worker jobs` lists them")
        steps = "from its first step" if fresh else "finished steps are kept"
        if not agreed(f"retry the {row['status']} {row['job_type']} job {job}; {steps}", config, yes):
            return False
        try:
            await connection.execute("select worker.retry($1, $2)", job, fresh)
        except asyncpg.PostgresError as error:
            if error.sqlstate != "WK003":
                raise
            say(error)
            return False
    put(f"job {job} is pending and due")
    return True


async def _retry_failed(config: "Config", job_type: str, fresh: bool, yes: bool) -> bool:
    from worker.cli.ask import agreed
    from worker.cli.paper import put
    from worker.cli.reach import reached

    async with reached(config) as connection:
        jobs = await connection.fetchval(_COUNT, job_type)
        if not jobs:
            put(f"no {job_type} job has failed")
            return True
        steps = "from their first step" if fresh else "finished steps are kept"
        if not agreed(f"retry {jobs} failed {job_type} job{'s' if jobs > 1 else ''}; {steps}", config, yes):
            return False
        retried, refused = await _pages(connection, job_type, fresh, jobs)
    put(f"{retried} {job_type} jobs are pending and due")
    if refused:
        print(f"worker: {refused} stay failed: another job holds their unique key", file=sys.stderr)
    return not refused


async def _pages(connection: "asyncpg.Connection", job_type: str, fresh: bool, jobs: int) -> tuple[int, int]:
    """Retry page by page, with a bar on a terminal; answers with how many went and how many were refused."""
    from worker.cli.paper import advancing

    retried = refused = 0
    with advancing(f"retrying {job_type}", jobs) as advance:
        after = 0
        while True:
            row = await connection.fetchrow(
                "select * from worker.retry_failed($1, $2, $3, $4)", job_type, after, PAGE, fresh
            )
            assert row is not None
            if row["last"] is None:
                return retried, refused
            after = row["last"]
            retried += row["retried"]
            refused += row["refused"]
            advance(row["retried"] + row["refused"])
