"""Many jobs at once: what would be done is shown first, and done when somebody says so."""

from collections.abc import Mapping
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker.desk import Row
from worker.web.bulk import worked
from worker.web.login import own_path
from worker.web.pages.front import done, front
from worker.web.pages.jobs import filters, since
from worker.web.pages.words import plural
from worker.web.problems import Problem
from worker.web.visit import Fields, Form, Operator, Queue

SHOWN = 20  # refusals
MOST = 1_000  # chosen one by one
WORDS = {"retry": "retried", "cancel": "cancelled"}
WHAT = {
    "retry": "due now, finished steps are kept",
    "pending": "cancelled",
    "running": "asked to end; its SQL is stopped",
}

router = APIRouter()


@router.get("/admin/jobs/many")
async def preview(request: Request, _: Operator, desk: Queue) -> Response:
    """What would be done; does nothing."""
    given = request.query_params
    act, chosen = _asked(given.get("act", ""), given.getlist("id"), given)
    seen = await desk.preview_bulk(act, chosen)
    ids = [str(number) for number in chosen.get("ids", ())]
    total = max(len(ids), seen["count"])
    return await front(request).page(
        request, "many.html", act=act, done_word=WORDS[act], total=total, going=seen["count"], more=seen["more"],
        groups=[{**each, "what": WHAT.get(each["status"], WHAT["retry"])} for each in seen["groups"]], ids=ids,
        sample=seen["sample"], filters={} if ids else _named(given), rated=act == "retry" and total > 1,
        back=own_path(given.get("back", "")) or f"/admin/jobs?{urlencode(_named(given))}",
    )  # fmt: skip


@router.post("/admin/jobs/many")
async def begin(request: Request, form: Form, who: Operator, desk: Queue) -> Response:
    """Do it, as far as one request's time goes."""
    first = {name: values[0] for name, values in form.items()}
    act, chosen = _asked(first.get("act", ""), form.get("id", []), first)
    rate, reason = _rate(first.get("rate", "")), first.get("reason", "").strip()[:250]
    bulk = await desk.begin_bulk(who.actor, act, chosen, rate=rate, reason=reason or None)
    return await _work(request, form, who, desk, bulk)


@router.post("/admin/jobs/many/{bulk}")
async def go_on(request: Request, bulk: int, form: Form, who: Operator, desk: Queue) -> Response:
    """Go on with one that is not done yet."""
    return await _work(request, form, who, desk, bulk)


async def _work(request: Request, form: Fields, who: Operator, desk: Queue, bulk: int) -> Response:
    told = await worked(desk, who.actor, bulk)
    told["refusals"] = told["refusals"][:SHOWN]
    back = own_path(form.get("back", [""])[0]) or "/admin/jobs"
    if told["more"] or told["refusals"]:
        return await front(request).page(request, "many_done.html", told=told, bulk=bulk, back=back)
    return done(back, "bulk", told["done"], told["refused"])


def _asked(act: str, ids: list[str], given: Mapping[str, str]) -> tuple[str, Row]:
    """The verb and the filter: jobs by their ids, or all that fit.

    Raises:
        Problem: neither.
    """
    if act not in WORDS:
        raise Problem(422, "invalid", "there is retry and cancel")
    numbers = [int(each) for each in ids if each.isdecimal() and each.isascii() and len(each) < 19]
    if len(numbers) > MOST:
        raise Problem(422, "invalid", f"at most {plural(MOST, 'job')} are chosen one by one: use the filter for more")
    if numbers:
        return act, {"ids": numbers}
    if "all" not in given:
        raise Problem(422, "invalid", "choose jobs first: their boxes are before their numbers")
    asked = filters(given)
    return act, _filter(asked)


def _filter(asked: Row) -> Row:
    ended = since(asked["since"])
    told = {
        "type": asked["job_type"],
        "status": asked["status"],
        "tenant": asked["tenant_id"],
    }
    ago = {} if ended is None else {"since": ended.isoformat()}
    return {name: value for name, value in told.items() if value} | ago


def _named(given: Mapping[str, str]) -> dict[str, str]:
    names = ("type", "status", "tenant", "since", "all")
    return {name: given[name] for name in names if given.get(name)}


def _rate(text: str) -> float | None:
    return float(text) if text.isdecimal() and 0 < int(text[:6]) <= 10_000 else None
