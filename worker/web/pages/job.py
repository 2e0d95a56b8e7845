"""One job: why it is where it is, its steps over time, errors, payload when asked, family, who did what."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker import exact
from worker.web.pages import gantt
from worker.web.pages.front import EVENTS, front
from worker.web.pages.words import plural, span
from worker.web.problems import Problem
from worker.web.reply import redacted
from worker.web.visit import Queue

FACTS = (
    ("Tenant", "tenant_id"), ("Source", "source"), ("Enqueued by", "enqueued_by"), ("Priority", "priority"),
    ("Rescues", "rescues"), ("Snoozes", "snoozes"), ("Unique key", "unique_key"),
    ("Concurrency key", "concurrency_key"),
    ("Correlation", "correlation_id"), ("Reason", "finish_reason"), ("Process", "claimed_by"), ("Claim", "claim"),
)  # fmt: skip
INSTANTS = (
    ("Created", "created_at"), ("Started", "started_at"), ("Finished", "finished_at"), ("Next run", "next_run"),
    ("Expires", "expires_at"), ("Deadline", "deadline_at"),
)  # fmt: skip
LONGEST = 20_000  # characters of a payload or result that are shown

router = APIRouter()


@router.get("/admin/jobs/{number}")
async def job(request: Request, number: int, desk: Queue) -> Response:
    """The page of a job."""
    found = await desk.job(number) if 0 < number < 2**63 else None
    if found is None:
        raise Problem(404, "no_such_job", f"There is no job {number}: it was never there, or it was pruned.")
    chart = gantt.chart(found, needs(request, found["job_type"])) if found["steps"] else None
    return await front(request).page(
        request, "job.html", job=found, explained=found["explained"], chart=chart, story=chart and story(found, chart),
        facts=list(_facts(found)), instants=[(told, found[name]) for told, name in INSTANTS if found[name]],
        shown=_shown(found) if request.query_params.get("show") == "payload" else None,
        progress=_pretty(found["progress"]), events=[_event(each) for each in found["events"]],
        stream=f"{EVENTS}?job={number}",
    )  # fmt: skip


def needs(request: Request, job_type: str) -> dict[str, tuple[str, ...]]:
    """By step, what it needs, where the type is declared here."""
    declared = front(request).config.job.get(job_type)
    return (
        {step.name: tuple(step.needs) for step in declared.graph.steps.values()} if declared and declared.graph else {}
    )


def story(found: Mapping[str, Any], chart: gantt.Chart) -> str:
    """The chart in words."""
    done = sum(bar.status == "completed" for bar in chart.bars)
    kept, failed = (
        [bar.name for bar in chart.bars if bar.kept],
        [bar.name for bar in chart.bars if bar.status == "failed"],
    )
    said = [f"{done} of {plural(len(chart.bars), 'step')} done"]
    if failed:
        said.append(f"failed: {', '.join(failed)}")
    if kept:
        said.append(f"{len(kept)} kept from an earlier attempt and not run again")
    if chart.slowest and len(chart.bars) > 1:
        said.append(f"slowest: {chart.slowest.name}, {chart.slowest.length}")
    if len(chart.critical) > 1:
        said.append(f"critical path: {' → '.join(chart.critical)}")
    return "; ".join(said) + "."


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "Attempt", f"{found['attempt']} of {found['max_attempts']}"
    if found["started_at"] or found["finished_at"]:
        yield "Waited", span(found["wait"])
    if found["duration"] is not None:
        yield "From first start to end" if found["finished_at"] else "Since its first start", span(found["duration"])
    yield from ((told, found[name]) for told, name in FACTS if found[name] not in (None, 0, ""))


def _shown(found: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "payload": _pretty(found["payload"]),
        "result": None if found["result"] is None else _pretty(found["result"]),
    }


def _pretty(value: Any) -> str:
    try:
        text = exact.dumps(redacted(value), option=INDENT).decode()
    except (TypeError, ValueError, RecursionError):  # such a job failed as invalid anyhow
        return "cannot be shown: a number too long"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST} more characters"


INDENT = 1  # orjson.OPT_INDENT_2


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(event["detail"] or {})
    by = rest.pop("by", None) or event["actor"]
    way = [f"{rest.pop('from')} → {rest.pop('to', '?')}"] if "from" in rest else []
    return {**event, "by": by, "detail": " ".join((*way, *(f"{key}={value}" for key, value in rest.items())))}
