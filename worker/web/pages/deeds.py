"""What a person does by the pages: each is a form that was posted, checked for its origin, and leaves an event."""

from fastapi import APIRouter
from fastapi.responses import Response

from worker.web.pages.front import done
from worker.web.problems import Problem
from worker.web.visit import Form, Operator, Queue

router = APIRouter()


@router.post("/admin/jobs/{number}/retry")
async def retry(number: int, form: Form, who: Operator, desk: Queue) -> Response:
    """Run it again: what is missing, or all of it."""
    await desk.retry(who.actor, _known(number), fresh="fresh" in form)
    return done(f"/admin/jobs/{number}", "retried")


@router.post("/admin/jobs/{number}/cancel")
async def cancel(number: int, form: Form, who: Operator, desk: Queue) -> Response:
    """Cancel it, or ask it to end where it runs."""
    reason = form.get("reason", [""])[0].strip()
    status = await desk.cancel(who.actor, _known(number), reason or None)
    word = {"cancelled": "cancelled", "running": "asked"}.get(status, "was_so")
    return done(f"/admin/jobs/{number}", word)


@router.post("/admin/types/{name}/pause")
async def pause(name: str, who: Operator, desk: Queue) -> Response:
    """Claim no more of a type."""
    return done("/admin/types", "paused" if await desk.pause(who.actor, name) else "was_so")


@router.post("/admin/types/{name}/resume")
async def resume(name: str, who: Operator, desk: Queue) -> Response:
    """Claim it again."""
    return done("/admin/types", "resumed" if await desk.resume(who.actor, name) else "was_so")


@router.post("/admin/schedules/{name}/run")
async def run_schedule(name: str, form: Form, who: Operator, desk: Queue) -> Response:
    """Fire it now."""
    word = "ran_soon" if await desk.run_schedule(who.actor, name) is None else "ran"
    return done("/admin" if form.get("to") == ["/admin"] else "/admin/schedules", word)


@router.post("/admin/schedules/{name}/pause")
async def pause_schedule(name: str, who: Operator, desk: Queue) -> Response:
    """Fire it no more."""
    return done("/admin/schedules", "paused" if await desk.pause_schedule(who.actor, name) else "was_so")


@router.post("/admin/schedules/{name}/resume")
async def resume_schedule(name: str, who: Operator, desk: Queue) -> Response:
    """Fire it again, from now on."""
    return done("/admin/schedules", "resumed" if await desk.resume_schedule(who.actor, name) else "was_so")


def _known(number: int) -> int:
    if not 0 < number < 2**63:
        raise Problem(404, "no_such_job", f"There is no job {number}.")
    return number
