"""The stats update in the shapes of the first system, so that its front end can point here unchanged."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from worker import exact
from worker.desk import Row
from worker.web.api.models import Answer, Given, Short, Whole
from worker.web.problems import answers
from worker.web.reply import Strict, redacted, reply
from worker.web.visit import Enqueuer, Operator, Queue, Reader, Seen

LATE_SECONDS = 300.0
TRIGGERS = ("post-match", "admin", "cron")

_LAST = (
    "select to_jsonb(b) from club.background_job_status b where $1::text is null or b.tenant_id = $1"
    " order by b.id::bigint desc limit 10"
)
_ALL = "select club.trigger_all() as added, (select count(*) from club.active_tenants()) as clubs"

router = APIRouter(tags=["stats update"], route_class=Strict)


class Asked(Given):
    """Who wants the statistics brought up to date, and why."""

    triggeredBy: Literal["post-match", "admin", "cron"]
    requestId: Short
    tenantId: Short
    matchId: Whole | str | None = None
    userId: Short | None = None
    retryOf: Annotated[str, Field(pattern=r"^[0-9]{1,15}$")] | None = None
    timestamp: Short | None = None


class Enqueued(Answer):
    """The job, or the one that waited already."""

    success: bool
    jobId: str
    message: str


class Listed(Answer):
    """Jobs in the first system's words."""

    success: bool
    data: list[dict[str, Any]]


class Done(Answer):
    """What came of it."""

    success: bool
    message: str
    details: dict[str, int]


class Health(Answer):
    """How the system is."""

    success: bool
    health: dict[str, Any]
    test_duration: int = Field(description="Milliseconds.")


class Ready(Answer):
    """Which triggers are known."""

    status: str
    endpoint: str
    timestamp: str
    supportedTriggers: list[str]


@router.post(
    "/api/admin/enqueue-stats-job",
    responses={200: {"model": Enqueued, "description": "Enqueued."}, **answers(404, 409)},
    summary="Bring a club's statistics up to date",
)
async def enqueue(asked: Asked, who: Enqueuer, queue: Queue) -> Response:
    """Enqueue `stats_update` for a club; with `retryOf` the job of that id is retried instead."""
    told = asked.model_dump(exclude_none=True)
    told.setdefault("timestamp", now())
    priority = 2 if asked.triggeredBy == "post-match" else 1
    given = (exact.dumps(told).decode(), priority, asked.tenantId)
    rows = await queue.act(who.actor, "select club.submit($1, $2, $3)", *given)
    return reply({"success": True, "jobId": str(rows[0][0]), "message": f"enqueued for {asked.triggeredBy}"})


@router.get(
    "/api/admin/enqueue-stats-job",
    responses={200: {"model": Ready, "description": "It is there."}},
    summary="Which triggers are known",
)
async def ready(who: Reader) -> Response:
    """The triggers that a job can be enqueued for."""
    triggers = list(TRIGGERS)
    return reply(
        {"status": "healthy", "endpoint": "enqueue-stats-job", "timestamp": now(), "supportedTriggers": triggers}
    )


@router.get(
    "/api/admin/background-jobs",
    responses={200: {"model": Listed, "description": "The jobs."}},
    summary="The last ten jobs",
)
async def background_jobs(
    who: Reader, queue: Queue, tenantId: Annotated[Short | None, Query(description="Of this club.")] = None
) -> Response:
    """The last ten stats updates, of all clubs or of one, as `club.background_job_status` has them."""
    rows = await queue.ask(_LAST, tenantId)
    return reply({"success": True, "data": [redacted(exact.readable(row[0])) for row in rows]})


@router.post(
    "/api/superadmin/trigger-all-stats",
    responses={200: {"model": Done, "description": "Enqueued."}},
    summary="Bring the statistics of all clubs up to date",
)
async def trigger_all(who: Operator, queue: Queue) -> Response:
    """Enqueue `stats_update` for every active club; one whose job waits already has none added."""
    row = (await queue.act(who.actor, _ALL))[0]
    details = {"total": row["clubs"], "enqueued": row["added"], "failed": 0}
    return reply({"success": True, "message": f"{row['added']} jobs enqueued", "details": details})


@router.get(
    "/api/admin/system-health",
    responses={200: {"model": Health, "description": "How it is."}},
    summary="How the stats update is",
)
async def system_health(who: Reader, seen: Seen) -> Response:
    """Whether a worker is there for the stats update and the webhook, and nothing has waited for five minutes."""
    began = time.monotonic()
    now_seen = await seen.overview()
    systems = {
        "background_worker": _system(now_seen, "stats_update"),
        "cache_invalidation": _system(now_seen, "invalidate_cache"),
        "database": {"status": "healthy", "active": True, "tests": [], "overall_message": "it answers"},
    }
    worst = max((each["status"] for each in systems.values()), key=_WORSE.index)
    advice = [each["overall_message"] for each in systems.values() if each["status"] in _WORSE[2:]]
    health = {"timestamp": now(), "overall_status": "healthy" if worst == "not_tested" else worst,
              "feature_flags": {name: _flag(now_seen, name) for name in ("stats_update", "invalidate_cache")},
              "systems": systems, "recommendations": advice}  # fmt: skip
    return reply({"success": True, "health": health, "test_duration": round(1000 * (time.monotonic() - began))})


_WORSE = ("not_tested", "healthy", "degraded", "unhealthy")


def _system(overview: Mapping[str, Any], job_type: str) -> Row:
    """A type as the first system would have tested it."""
    found = next((each for each in overview["types"] if each["job_type"] == job_type), None)
    if found is None or not found["declared"]:
        return {"status": "not_tested", "active": False, "tests": [], "overall_message": f"{job_type} is not declared"}
    late = (found["oldest_due"] or 0) > LATE_SECONDS
    tests = [
        {"name": "Worker", "status": "pass" if found["daemons"] else "fail", "message": f"{found['daemons']} alive"},
        {"name": "Queue", "status": "fail" if late else "pass", "message": f"{found['due']} due"},
        {"name": "Paused", "status": "fail" if found["paused"] else "pass", "message": str(found["paused"]).lower()},
    ]
    status = "unhealthy" if not found["daemons"] else "degraded" if late or found["paused"] else "healthy"
    said = {"unhealthy": f"no worker runs {job_type}", "degraded": f"{job_type} is paused, or waits for long",
            "healthy": f"{job_type} runs"}[status]  # fmt: skip
    return {"status": status, "active": found["enabled"], "tests": tests, "overall_message": said}


def _flag(overview: Mapping[str, Any], job_type: str) -> bool:
    return any(each["job_type"] == job_type and each["enabled"] for each in overview["types"])


def now() -> str:
    """This moment, for answers that the first system stamped."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
