"""The button that updates a club's statistics, with the states of the first system; where the type is declared."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker.desk import Desk, Row
from worker.web.pages.front import done, front
from worker.web.problems import Problem
from worker.web.visit import Enqueuer, Form, Queue

TYPE = "stats_update"
LAST = 10

router = APIRouter()


async def button(request: Request, desk: Desk) -> dict[str, Any] | None:
    """What the button shows; None where nobody declares its type."""
    config = front(request).config
    if TYPE not in config.job:
        return None
    jobs: list[Row] = (await desk.find({"type": TYPE}, None, LAST))["jobs"]
    asked = request.query_params.get("said", "").partition(":")
    chosen = next((job for job in jobs if asked[0] == "enqueued" and str(job["id"]) == asked[2]), None)
    shown = chosen or next((job for job in jobs if job["source"] == "admin"), None) or (jobs[0] if jobs else None)
    nightly = next(
        (name for name, schedule in config.schedule.items() if schedule.job == TYPE and schedule.enabled), None
    )
    tenants = sorted({job["tenant_id"] for job in jobs if job["tenant_id"]})
    return {"job": shown, "jobs": jobs, "at": shown and _way(shown["status"]), "nightly": nightly, "tenants": tenants,
            "tenant": shown and shown["tenant_id"]}  # fmt: skip


@router.post("/admin/stats")
async def enqueue(request: Request, form: Form, who: Enqueuer, desk: Queue) -> Response:
    """Enqueue an update for one tenant; one that waits already is the answer."""
    tenant = form.get("tenant", [""])[0].strip()
    if TYPE not in front(request).config.job or not tenant:
        raise Problem(422, "invalid", "it takes the id of a tenant")
    wanted = {"job_type": TYPE, "payload": {"tenant_id": tenant}, "source": "admin"}
    number, _ = await desk.submit(who.actor, wanted)
    return done("/admin", "enqueued", number)


def _way(status: str) -> dict[str, str]:
    """The states behind `enqueue`, each done, current or to come."""
    tones = {"pending": ("current", "", ""), "running": ("done", "current", "")}
    queued, processing, end = tones.get(
        status, ("done", "done", {"completed": "good", "failed": "bad"}.get(status, "gone"))
    )
    last = status if status in ("failed", "cancelled", "skipped") else "completed"
    return {"queued": queued, "processing": processing, "end": end, "last": last}
