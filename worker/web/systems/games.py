"""Game sync, under the paths of the original. The key is an application's, which says whose games they are."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BeforeValidator, Field

from worker import exact
from worker.desk import Row
from worker.web.api.models import Answer, Given, Instant, whole
from worker.web.problems import answers
from worker.web.reply import Strict, reply
from worker.web.visit import Enqueuer, Operator, Queue, Reader

router = APIRouter(tags=["game sync"], route_class=Strict)

_START = (
    "select s.sync_id, s.job_id, s.status, worker.note_submission(s.job_id, true)"
    " from games.start($1, $2, $3, $4, $5, $6) s"
)
Months = Annotated[int, Field(ge=1, le=120), BeforeValidator(whole)]
User = Annotated[UUID, Path(description="The user.")]
Sync = Annotated[UUID, Path(description="The sync.")]
Kind = Literal["bullet", "blitz", "rapid", "classical", "daily", "other"]


class Filters(Given):
    """Which games."""

    kind: list[Kind] | None = Field(None, min_length=1)
    result: list[Literal["win", "loss", "draw"]] | None = Field(None, min_length=1)
    colour: list[Literal["white", "black"]] | None = Field(None, min_length=1)


class Start(Given):
    """What is fetched and analysed: the last months of 30 days, or a span."""

    platform: Literal["lichess", "chess.com"]
    months: Months = 1
    from_date: Instant | None = None
    to_date: Instant | None = None
    filters: Filters | None = None


class Started(Answer):
    """A sync that waits for its turn."""

    sync_job_id: str
    job_id: int
    status: str


class SyncJob(Answer):
    """A sync in the original's words: pending, fetching, analyzing, completed, failed."""

    id: str
    status: str
    games_found: int
    games_analyzed: int
    error: str | None


class SyncJobs(Answer):
    """The last ten of a user, the newest first."""

    sync_jobs: list[SyncJob]


class Ended(Answer):
    """What was ended."""

    ended: list[str]


_STARTED: dict[int | str, dict[str, Any]] = {202: {"model": Started, "description": "It waits."}}


@router.post(
    "/sync-games/{user_id}", status_code=202, responses=_STARTED | answers(400, 404, 409), summary="Start a game sync"
)
async def start(user_id: User, asked: Start, who: Enqueuer, queue: Queue) -> Response:
    """409 with the active one's id in `holder` while one of this user and platform is active."""
    filters = asked.filters.model_dump(exclude_none=True) if asked.filters else {}
    given = (asked.platform, asked.months, asked.from_date, asked.to_date, exact.dumps(filters).decode())
    row = (await queue.act(who.actor, _START, user_id, *given))[0]
    return reply({"sync_job_id": str(row["sync_id"]), "job_id": row["job_id"], "status": row["status"]}, 202)


@router.get(
    "/sync-status/{id}",
    responses={200: {"model": SyncJob, "description": "The sync."}, **answers(404)},
    summary="One game sync",
)
async def status(id: Sync, who: Reader, queue: Queue) -> Response:
    """How far it is."""
    return reply(_rows(await queue.ask("select to_jsonb(s) from games.status($1) s", id))[0])


@router.get(
    "/sync-jobs/{user_id}",
    responses={200: {"model": SyncJobs, "description": "The syncs."}, **answers(404)},
    summary="A user's game syncs",
)
async def recent(user_id: User, who: Reader, queue: Queue) -> Response:
    """The last ten."""
    return reply({"sync_jobs": _rows(await queue.ask("select to_jsonb(s) from games.recent($1) s", user_id))})


@router.post(
    "/admin/cleanup-stuck-sync-jobs",
    responses={200: {"model": Ended, "description": "Ended."}},
    summary="End game syncs that stand still",
)
async def cleanup_stuck(who: Operator, queue: Queue) -> Response:
    """Those that show no progress for two hours, or are due and not taken."""
    rows = await queue.act(who.actor, "select games.cleanup_stuck()::text")
    return reply({"ended": [row[0] for row in rows]})


@router.post(
    "/admin/fix-specific-sync-job/{id}",
    responses={200: {"model": Ended, "description": "Ended, or asked to."}, **answers(404)},
    summary="End one game sync",
)
async def fix(id: Sync, who: Operator, queue: Queue) -> Response:
    """Its user can start again."""
    await queue.act(who.actor, "select games.fix($1)", id)
    return reply({"ended": [str(id)]})


def _rows(rows: list[Any]) -> list[Row]:
    return [exact.readable(row[0]) for row in rows]
