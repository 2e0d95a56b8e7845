"""The first page: what is wrong, what runs, what ended, who is there."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker.desk import Desk, Row
from worker.web.pages import charts, stats
from worker.web.pages.findings import findings, state
from worker.web.pages.front import front
from worker.web.pages.words import instant, span
from worker.web.shared import Shared
from worker.web.visit import Queue

USUAL_HOURS = 6
SPANS = ((2, "2 h"), (6, "6 h"), (24, "24 h"), (168, "7 d"))

router = APIRouter()


@router.get("/admin")
async def overview(request: Request, desk: Queue) -> Response:
    """All of it at one glance."""
    asked = request.query_params.get("hours", "")
    hours = int(asked) if asked in {str(hours) for hours, _ in SPANS} else USUAL_HOURS
    shown = charts.SPANS[hours]
    shared: Shared = request.app.state.shared
    seen, rows, last_hour, button = await asyncio.gather(
        shared.get(("overview",), desk.overview),
        shared.get(("trends", hours), lambda: _trends(desk, hours, shown.seconds), shown.seconds / 60),
        shared.get(("trends", 1), lambda: _trends(desk, 1, 300), 5),
        stats.button(request, desk),
    )
    slots = shown.slots(datetime.now(UTC))
    by_type = _by_type(rows)
    columns, most = charts.columns(rows, slots)
    return await front(request).page(
        request, "overview.html", hours=hours, spans=SPANS,
        hours_told=span(hours * 3600), each_told=span(shown.seconds),
        findings=findings(seen, {name: charts.totals(each) for name, each in _by_type(last_hour).items()}),
        types=[_type(type_, by_type[type_["job_type"]], slots) for type_ in seen["types"]],
        sums=_sums(seen, charts.totals(rows)), columns=columns, most=most,
        daemons=seen["daemons"], failures=seen["failures"], stats=button,
    )  # fmt: skip


async def _trends(desk: Desk, hours: int, seconds: int) -> list[Row]:
    """What ended in each span, which begins `at`."""
    return [{**row, "at": instant(row["at"])} for row in await desk.trends(hours * 3600, seconds)]


def _type(type_: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], slots: Sequence[datetime]) -> dict[str, Any]:
    counted = charts.totals(rows)
    lines = {what: charts.line(rows, what, slots) for what in ("wait", "run")}
    return {**type_, **counted, **lines, "state": state(type_)}


def _sums(seen: Mapping[str, Any], counted: Mapping[str, int]) -> dict[str, Any]:
    alive = [each for each in seen["daemons"] if each["state"] == "alive"]
    late = [type_["oldest_due"] for type_ in seen["types"] if type_["oldest_due"] is not None]
    added = {name: sum(type_[name] for type_ in seen["types"]) for name in ("due", "later", "parked", "running")}
    return {
        **added, **counted, "slots": sum(each["slots"] for each in alive), "alive": len(alive),
        "oldest": max(late, default=None),
    }  # fmt: skip


def _by_type(rows: Sequence[Mapping[str, Any]]) -> defaultdict[str, list[Mapping[str, Any]]]:
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["job_type"]].append(row)
    return found
