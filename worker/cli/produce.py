"""`enqueue` and `cancel`: what puts jobs in, and takes them out."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.cli.bulk import DryRun, OfTenant, OfType, WithError
from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Yes

if TYPE_CHECKING:
    import asyncpg

    from worker.config import Config

# All that worker.enqueue takes, by name.
ENQUEUE = (
    "select worker.enqueue(job_type => $1, payload => $2::jsonb, delay => $3, priority => $4, unique_key => $5,"
    " on_conflict => $6, concurrency_key => $7, tenant_id => $8, max_attempts => $9, correlation_id => $10,"
    " source => $11)"
)


def enqueue(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON]", help="The payload; - reads it from standard input.")
    ] = "{}",
    *,
    delay: Annotated[str, typer.Option(metavar="DURATION", help="Due so much later.")] = "0s",
    priority: Annotated[int | None, typer.Option(min=0, max=1000, help="Smaller runs first.")] = None,
    unique_key: Annotated[str | None, typer.Option(help="Instead of the type's own.")] = None,
    on_conflict: Annotated[
        Literal["keep", "refuse", "replace"] | None, typer.Option(help="What to do when the unique key is held.")
    ] = None,
    concurrency_key: Annotated[str | None, typer.Option(help="Instead of the type's own.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant; else payload.tenant_id.")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Instead of the type's own.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Carried through logs and follow-ups; else a new one.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from, for the type's per-source flags.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Enqueue one job and print its id, or the id of the job that already holds its unique key."""
    from datetime import timedelta

    from worker.cli.durations import seconds
    from worker.cli.paper import put, put_json
    from worker.cli.reach import configured, go

    text = _json(sys.stdin.read() if payload == "-" else payload)
    later = timedelta(seconds=seconds(delay, "--delay"))
    values = (text, later, priority, unique_key, on_conflict, concurrency_key, tenant, max_attempts, correlation_id)
    job = go(_enqueue(configured(config), job_type, *values, source))
    put_json({"id": job}) if as_json else put(str(job))


def cancel(
    job: Annotated[int | None, typer.Argument(metavar="[ID]", help="The job.")] = None,
    *,
    job_type: OfType = None,
    status: Annotated[Literal["pending", "running"] | None, typer.Option(help="Many: in this status.")] = None,
    error: WithError = None,
    tenant: OfTenant = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Many: enqueued since then: 24h ago, or an instant.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Many: enqueued until then.")] = None,
    reason: Annotated[str | None, typer.Option(help="Kept on the row as finish_reason.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Cancel a job, or many that fit a filter: pending ones at once, running ones by ending their SQL and attempt.

    Asks before it ends a running job, or many. Exit code 1 when the job is at its end already.
    """
    from worker.cli.bulk import Order, carry_out, wanted
    from worker.cli.reach import configured, go

    filter = wanted(type=job_type, status=status, error=error, tenant=tenant, since=since, until=until)
    if (job is None) != bool(filter) or (job is not None and dry_run):
        raise typer.BadParameter("give either ID, or a filter such as --type", param_hint="ID")
    loaded = configured(config)
    if job is None:
        done = carry_out(loaded, Order("cancel", filter, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json))
    else:
        done = go(_cancel(loaded, job, reason, yes, as_json))
    if not done:
        raise typer.Exit(1)


async def _enqueue(config: "Config", job_type: str, *values: Any) -> int:
    from worker.cli.reach import reached

    async with reached(config) as connection:
        known = await connection.fetchval("select exists (select from worker.job_type where name = $1)", job_type)
        if not known:
            print(f"worker: nobody declared {job_type}: it waits until a worker.toml does", file=sys.stderr)
        job: int = await connection.fetchval(ENQUEUE, job_type, *values)
        return job


async def _cancel(config: "Config", job: int, reason: str | None, yes: bool, as_json: bool) -> bool:
    from worker.cli.ask import agreed
    from worker.cli.paper import put, put_json
    from worker.cli.reach import reached

    async with reached(config) as connection:
        row = await _found(connection, job)
        if row["status"] == "running" and not agreed(
            f"end the running {row['job_type']} job {job} (attempt {row['attempt']}); finished steps stay", config, yes
        ):
            return False
        status = await connection.fetchval("select worker.cancel($1, $2)", job, reason)
    told = {"cancelled": f"cancelled job {job}", "running": f"asked job {job} to end; `worker show {job}` tells when"}
    already = f"job {job} is at its end already: {status}"
    if as_json:
        put_json({"id": job, "status": status})
    else:
        put(already if row["status"] not in ("pending", "running") else told.get(status, already))
    return row["status"] in ("pending", "running") and status in told


async def _found(connection: "asyncpg.Connection", job: int) -> "asyncpg.Record":
    from worker.cli.verdict import Refused

    row = await connection.fetchrow("select status, job_type, attempt from worker.jobs where id = $1", job)
    if row is None:
        raise Refused(f"there is no job {job}: `worker jobs` lists them")
    return row


def _json(text: str) -> str:
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"the payload is not JSON: {error}", param_hint="JSON") from None
    return text
