"""The list of jobs: filter, search, turn pages; and many of them chosen, with a preview of what would be done."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker.web.pages.front import front
from worker.web.visit import Queue

PER_PAGE = 50
STATUSES = ("pending", "running", "completed", "skipped", "failed", "cancelled")
SINCES = (("", "any time"), ("1h", "the last hour"), ("6h", "6 hours"), ("12h", "12 hours"), ("24h", "24 hours"),
          ("168h", "7 days"))  # fmt: skip

router = APIRouter()


@router.get("/admin/jobs")
async def jobs(request: Request, desk: Queue) -> Response:
    """A page of the list."""
    asked = filters(request.query_params)
    plain = {name: value for name, value in _named(asked).items() if value}
    chosen = {**plain, "text": asked["search"], "since": since(asked["since"])}
    found = await desk.find(chosen, asked["before_id"], PER_PAGE)
    return await front(request).page(
        request, "jobs.html", asked=asked, found=found, type_names=await _types(desk, asked["job_type"]),
        statuses=STATUSES, sinces=SINCES, filtered=bool(plain),
        newest=_link(plain), older=_link(plain, before=found["next"]),
        all_deeds=_all_deeds(asked), all_link=f"/admin/jobs/many?{urlencode({**plain, 'all': 1})}",
    )  # fmt: skip


def filters(given: Any) -> dict[str, Any]:
    """What an address or a form asks for, of what there is to be asked."""
    status, since, before = given.get("status", ""), given.get("since", ""), given.get("before", "")
    return {
        "job_type": _text(given.get("type")), "tenant_id": _text(given.get("tenant")),
        "search": _text(given.get("search")),
        "status": status if status in STATUSES else None, "since": since if hours(since) else None,
        "before_id": int(before) if before.isdecimal() and len(before) < 19 else None,
    }  # fmt: skip


def hours(text: str | None) -> timedelta | None:
    """12h → twelve hours."""
    number = (text or "").removesuffix("h")
    return (
        timedelta(hours=int(number)) if number.isdecimal() and 0 < int(number[:5]) <= 8760 and len(number) < 5 else None
    )


def since(text: str | None) -> datetime | None:
    """12h → the instant twelve hours ago."""
    ago = hours(text)
    return None if ago is None else datetime.now(UTC) - ago


def _text(value: str | None) -> str | None:
    """What was typed; a NUL is in no text of the database."""
    return (value or "").replace("\0", "").strip()[:200] or None


def _named(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "search": asked["search"], "type": asked["job_type"], "status": asked["status"], "tenant": asked["tenant_id"],
        "since": asked["since"],
    }  # fmt: skip


def _link(plain: dict[str, Any], **more: Any) -> str:
    query = urlencode({**plain, **{name: value for name, value in more.items() if value is not None}})
    return f"/admin/jobs?{query}" if query else "/admin/jobs"


def _all_deeds(asked: dict[str, Any]) -> list[tuple[str, str]]:
    """What can be done to all that match, not only to those that are seen; what was searched for is no filter of it."""
    if asked["search"]:
        return []
    if asked["status"] in ("failed", "cancelled"):
        return [("retry", f"Retry all that are {asked['status']} and match…")]
    return (
        [("cancel", f"Cancel all that are {asked['status']} and match…")]
        if asked["status"] in ("pending", "running")
        else []
    )


async def _types(desk: Queue, asked: str | None) -> list[str]:
    names = await desk.type_names()
    return names if asked is None or asked in names else [*names, asked]
