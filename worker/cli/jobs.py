"""`jobs` and `show`: a list of jobs, and one of them in full."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config import Config

Status = Literal["pending", "running", "completed", "skipped", "failed", "cancelled"]
_LIST = """
    select to_jsonb(j) as job, extract(epoch from j.wait)::double precision as wait,
      extract(epoch from j.duration)::double precision as duration
    from worker.list_jobs($1, $2, $3, $4, $5) j
"""
_COLUMNS = (" id", "type", "state", "tenant", " attempt", "created", " wait", " duration", "reason or error")
_SPARE = ("tenant", "wait", "attempt", "created", "duration")
# What `show` tells first, in this order, where there is something to tell.
_FACTS = (
    "status", "label", "phase", "progress", "tenant_id", "source", "payload", "priority", "scheduled_at", "attempt",
    "max_attempts", "rescues", "snoozes", "unique_key", "concurrency_key", "correlation_id", "parent_id", "children",
    "claimed_by", "claim", "enqueued_by", "created_at", "started_at", "finished_at", "wait", "duration", "expires_at",
    "deadline_at", "cancel_requested_at", "finish_reason",
)  # fmt: skip


def list_jobs(
    *,
    job_type: Annotated[str | None, typer.Option("--type", help="Of this type.")] = None,
    status: Annotated[Status | None, typer.Option(help="In this status.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many.")] = 20,
    before: Annotated[int | None, typer.Option(metavar="ID", help="Those older than this job: the next page.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    from worker.cli.paper import console, put, put_json, table
    from worker.cli.reach import configured, go

    jobs = go(_list(configured(config), job_type, status, tenant, before, limit))
    if as_json:
        put_json([job for job, *_ in jobs])
        return
    paper = console()
    paper.print(table(_COLUMNS, [_line(*each) for each in jobs], paper.width, _SPARE))
    if len(jobs) == limit:
        put(f"more: --before {jobs[-1][0]['id']}")


def show(
    job: Annotated[int, typer.Argument(metavar="ID", help="The job.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show one job: its row, the timeline of its steps, its errors and what people and rescues did to it."""
    from worker.cli.paper import put_json
    from worker.cli.reach import configured, go

    loaded = configured(config)
    found = go(_show(loaded, job))
    if as_json:
        put_json(found)
    else:
        _print(found, _needs(loaded, found["job_type"]))


async def _list(config: "Config", *filters: object) -> list[tuple[dict[str, Any], float | None, float | None]]:
    """Each job with the seconds that it waited and ran."""
    from worker import exact
    from worker.cli.reach import reached

    async with reached(config) as connection:
        rows = await connection.fetch(_LIST, *filters)
    return [(exact.readable(row["job"]), row["wait"], row["duration"]) for row in rows]


async def _show(config: "Config", job: int) -> dict[str, Any]:
    from worker import exact
    from worker.cli.reach import reached
    from worker.cli.verdict import Refused

    async with reached(config) as connection:
        text = await connection.fetchval("select worker.show_job($1)", job)
    if text is None:
        raise Refused(f"there is no job {job}: `worker jobs` lists them")
    found: dict[str, Any] = exact.readable(text)
    return found


def _line(job: dict[str, Any], wait: float | None, duration: float | None) -> tuple[object, ...]:
    attempt = f"{job['attempt']}/{job['max_attempts']}"
    why = [job["finish_reason"]]
    if job["status"] == "failed" or not why[0]:
        why.append(job["last_error"])
    told = ": ".join(text for text in why if text)
    times = (job["created_at"][:19], wait, duration)
    return (job["id"], job["job_type"], job["label"], job["tenant_id"], attempt, *times, told)


def _needs(config: "Config", job_type: str) -> dict[str, tuple[str, ...]]:
    declared = config.job.get(job_type)
    return (
        {step.name: tuple(step.needs) for step in declared.graph.steps.values()} if declared and declared.graph else {}
    )


def _print(job: dict[str, Any], needs: dict[str, tuple[str, ...]]) -> None:
    from worker.cli.paper import put

    put(f"job {job['id']}: {job['job_type']}")
    for part in (_facts(job), _timeline(job, needs), _errors(job), _events(job)):
        for line in part:
            put(line)


def _facts(job: dict[str, Any]) -> "Iterator[str]":
    from worker import exact
    from worker.cli.paper import shown

    for name in (*_FACTS, "result"):
        value = float(job[name]) if name in ("wait", "duration") and job[name] is not None else job[name]
        if value not in (None, 0, []):
            yield f"  {name:20} {exact.dumps(value).decode() if isinstance(value, dict | list) else shown(value)}"


def _timeline(job: dict[str, Any], needs: dict[str, tuple[str, ...]]) -> "Iterator[str]":
    from worker.course import drawn, stranded
    from worker.demo.gantt import chart

    if job["steps"]:
        yield "steps"
        for step, line in zip(job["steps"], chart([drawn(step, job) for step in job["steps"]], needs), strict=True):
            yield f"{line}  interrupted" if stranded(step, job) else line


def _errors(job: dict[str, Any]) -> "Iterator[str]":
    if job["errors"]:
        yield "errors"
        for error in job["errors"]:
            yield f"  attempt {error['attempt']} at {error['at'][:19]}: {error['message']}"


def _events(job: dict[str, Any]) -> "Iterator[str]":
    if job["events"]:
        yield "events"
        for event in job["events"]:
            told = " ".join(_told(event["detail"] or {}))
            yield f"  {event['at'][:19]} {event['event']} by {event['actor']} {told}".rstrip()


def _told(detail: dict[str, Any]) -> "Iterator[str]":
    rest = dict(detail)
    if "from" in rest:
        yield f"{rest.pop('from')} → {rest.pop('to')}"
    yield from (f"{key}={value}" for key, value in rest.items())
