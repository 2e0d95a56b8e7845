"""The sync manager under /api/sync. The key is an application's; whose sync it is, the application says."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field

from worker import exact
from worker.desk import Row
from worker.web.api.models import LARGEST, Answer, Given, JobId, Priority, Short, Table
from worker.web.problems import answers
from worker.web.reply import Strict, redacted, reply
from worker.web.visit import Enqueuer, Operator, Queue, Reader

router = APIRouter(prefix="/api/sync", tags=["sync"], route_class=Strict)

_START = (
    "select id, worker.note_submission(id, true) from sync.start($1, coalesce($2, 'seller'), coalesce($3, 'user'), $4,"
    " $5) as id"
)
User = Annotated[Short, Query(description="Whose.", examples=["u1"])]
Id = Annotated[int, Path(ge=1, le=LARGEST, description="The sync.", examples=[17])]
Shapes = dict[int | str, dict[str, Any]]


class Start(Given):
    """Whose data is to be fetched."""

    user_id: Short = Field(examples=["u1"])
    provider: Short | None = None
    source: Short | None = None
    priority: Priority | None = Field(None, description="Smaller runs first.")
    tenant_id: Short | None = None


class Whose(Given):
    """A user."""

    user_id: Short = Field(examples=["u1"])


class Cancel(Whose):
    """Whose sync ends, and why."""

    reason: str | None = Field(None, min_length=1, max_length=250)


class Clear(Whose):
    """Whose syncs end."""

    tenant_id: Short | None = None


class One(Given):
    """One of several."""

    user_id: Short
    provider: Short | None = None
    priority: Priority | None = None
    tenant_id: Short | None = None


class Several(Given):
    """Up to five."""

    syncs: list[One] = Field(min_length=1, max_length=5)


class Chosen(Given):
    """Which syncs of a user."""

    user_id: Short
    status: Short | None = Field(None, description="Of this status; older spellings are taken, too.")
    limit: int = Field(20, ge=1, le=100, strict=False)
    offset: int = Field(0, ge=0, le=1_000_000, strict=False)


class Cleanup(Given):
    """What is forgotten."""

    days: float = Field(30, ge=0.05, le=3650, description="Syncs that ended longer ago.")


class Started(Answer):
    """A sync that waits for its turn."""

    sync_id: JobId
    status: str


class SyncStatus(Answer):
    """A sync, or that there is none: idle, running, completed, failed, cancelled."""

    status: str


class Rows(Answer):
    """Syncs, the newest first."""

    syncs: list[Table]


class Anything(Answer):
    """Sums."""


def shapes(model: type[Answer], *statuses: int, status: int = 200) -> Shapes:
    """For `responses=`: the answer, and the problems beside those that all have."""
    return {status: {"model": model, "description": "Done."}, **answers(400, *statuses)}


@router.post("/start", status_code=202, responses=shapes(Started, 409, status=202), summary="Start a sync")
@router.post("/force", status_code=202, responses=shapes(Started, 409, status=202), summary="Start a sync, too")
async def start(asked: Start, who: Enqueuer, queue: Queue) -> Response:
    """409 with the running one's id in `holder` while a sync of this user is at work; 400 without a token that counts;
    503 (`too_many_syncs`) while too many wait.
    """
    given = (asked.user_id, asked.provider, asked.source, asked.priority, asked.tenant_id)
    rows = await queue.act(who.actor, _START, *given)
    return reply({"sync_id": rows[0]["id"], "status": "running"}, 202)


@router.post("/bulk", responses=shapes(Rows), summary="Start up to five syncs")
async def bulk(asked: Several, who: Enqueuer, queue: Queue) -> Response:
    """Each with its id, or why it was refused; one that is refused does not keep the others from starting."""
    given = exact.dumps([one.model_dump(exclude_none=True) for one in asked.syncs]).decode()
    rows = await queue.act(who.actor, "select to_jsonb(b) from sync.bulk_start($1) b order by b.place", given)
    return reply({"syncs": _rows(rows)})


@router.get("/status", responses=shapes(SyncStatus), summary="A user's newest sync")
async def newest(who: Reader, queue: Queue, user_id: User) -> Response:
    """The newest sync of a user; `idle` where there is none."""
    return reply(_row(await queue.ask("select sync.status($1)", user_id)))


@router.get("/status/{id}", responses=shapes(SyncStatus, 404), summary="One sync of a user")
async def status(id: Id, who: Reader, queue: Queue, user_id: User) -> Response:
    """One sync, with its progress and its error in words."""
    return reply(_row(await queue.ask("select sync.status($1, $2)", user_id, id)))


@router.get("/active", responses=shapes(Rows), summary="The sync that is at work")
async def active(who: Reader, queue: Queue, user_id: User) -> Response:
    """The sync of a user that waits or runs; none, or one."""
    return reply({"syncs": _rows(await queue.ask("select to_jsonb(s) from sync.active($1) s", user_id))})


@router.get("/history", responses=shapes(Rows), summary="A user's syncs")
async def history(chosen: Annotated[Chosen, Query()], who: Reader, queue: Queue) -> Response:
    """Syncs of a user, the newest first."""
    given = (chosen.user_id, chosen.limit, chosen.offset, chosen.status)
    return reply({"syncs": _rows(await queue.ask("select to_jsonb(s) from sync.history($1, $2, $3, $4) s", *given))})


@router.get("/statistics", responses=shapes(Anything), summary="What came of the syncs")
async def statistics(who: Reader, queue: Queue, user_id: Annotated[Short | None, Query()] = None) -> Response:
    """Syncs by status, orders and claims, of a user or of all."""
    return reply(_row(await queue.ask("select to_jsonb(s) from sync.statistics($1) s", user_id)))


@router.get("/results/{id}", responses=shapes(Anything, 404), summary="What a sync came to")
async def results(id: Id, who: Reader, queue: Queue, user_id: User) -> Response:
    """Counted from the rows that it wrote."""
    return reply(_row(await queue.ask("select sync.results($1, $2)", user_id, id)))


@router.get("/queue-status", responses=shapes(Anything), summary="How the syncs' queue is")
async def queue_status(who: Reader, queue: Queue) -> Response:
    """Syncs and detections that wait and run, and the health of 24 hours."""
    return reply(_row(await queue.ask("select sync.queue_status()")))


@router.post("/cancel", responses=shapes(SyncStatus, 404), summary="Cancel a user's sync")
async def cancel_active(asked: Cancel, who: Operator, queue: Queue) -> Response:
    """The one that is at work."""
    return await _cancel(queue, who.actor, asked, None)


@router.post("/cancel/{id}", responses=shapes(SyncStatus, 404), summary="Cancel a sync")
async def cancel(id: Id, asked: Cancel, who: Operator, queue: Queue) -> Response:
    """A waiting one at once, a running one is asked to end."""
    return await _cancel(queue, who.actor, asked, id)


@router.post("/force-clear", responses=shapes(Rows), summary="End whatever is open of a user")
async def force_clear(asked: Clear, who: Operator, queue: Queue) -> Response:
    """Each job that was open, what it was and what it is now."""
    call = "select to_jsonb(c) from sync.force_clear($1, $2) c"
    return reply({"syncs": _rows(await queue.act(who.actor, call, asked.user_id, asked.tenant_id))})


@router.post("/cleanup", responses=shapes(Anything), summary="Forget old syncs")
async def cleanup(asked: Cleanup, who: Operator, queue: Queue) -> Response:
    """Syncs that ended longer ago, with their pages, detections and alerts; orders and claims stay."""
    call = "select to_jsonb(c) from sync.cleanup(make_interval(secs => $1)) c"
    return reply(_row(await queue.act(who.actor, call, asked.days * 86_400)))


async def _cancel(queue: Queue, who: str, asked: Cancel, id: int | None) -> Response:
    reason = asked.reason or "cancelled by the user"
    return reply(_row(await queue.act(who, "select sync.cancel($1, $2, $3)", asked.user_id, id, reason)))


def _row(rows: list[Any]) -> Row:
    found: Row = redacted(exact.readable(rows[0][0]))
    return found


def _rows(rows: list[Any]) -> list[Row]:
    return [redacted(exact.readable(row[0])) for row in rows]
