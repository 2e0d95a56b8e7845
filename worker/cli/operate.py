"""`retry`, `pause`, `resume` and `explain`: what operators do when something went wrong."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.bulk import DryRun, OfTenant, OfType, WithError
from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes

if TYPE_CHECKING:
    from worker.config import Config

JobType = Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")]


def retry(
    job: Annotated[int | None, typer.Argument(metavar="[ID]", help="The job.")] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Many: failed jobs.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Many: cancelled jobs.")] = False,
    job_type: OfType = None,
    reason: Annotated[str | None, typer.Option(help="Many: with this finish_reason, such as timeout.")] = None,
    error: WithError = None,
    tenant: OfTenant = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Many: that ended since then: 24h ago, or an instant.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Many: that ended until then.")] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Many: due one after the other, as 10/s, 30/m or 100/h.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished steps again, too.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Run a failed or cancelled job again, or many that fit a filter; finished steps are kept.

    Asks first. Exit code 1 when a job could not be retried because another holds its unique key.
    """
    from worker.cli.bulk import Order, carry_out, wanted
    from worker.cli.durations import a_second
    from worker.cli.reach import configured, go

    filter = wanted(type=job_type, finish_reason=reason, error=error, tenant=tenant, since=since, until=until)
    many = failed or cancelled
    if (job is None) != many or (failed and cancelled) or (job is not None and (filter or rate or dry_run)):
        raise typer.BadParameter("give either ID, or --failed or --cancelled with a filter", param_hint="ID")
    each = a_second(rate, "--rate") if rate else None
    loaded = configured(config)
    if job is None:
        filter["status"] = "failed" if failed else "cancelled"
        order = Order("retry", filter, rate=each, fresh=fresh, dry_run=dry_run, yes=yes, as_json=as_json)
        done = carry_out(loaded, order)
    else:
        done = go(_retry(loaded, job, fresh, yes, as_json))
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


async def _retry(config: "Config", job: int, fresh: bool, yes: bool, as_json: bool) -> bool:
    import asyncpg

    from worker.cli.ask import agreed
    from worker.cli.paper import put, put_json
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
    put_json({"id": job, "status": "pending"}) if as_json else put(f"job {job} is pending and due")
    return True
