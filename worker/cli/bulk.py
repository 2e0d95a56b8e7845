"""Many jobs at once: what a filter finds is shown and asked about, then retried or cancelled page by page."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    import asyncpg

    from worker.config import Config

Verb = Literal["retry", "cancel"]
PAGE = 500
LOOK = 5_000_000  # jobs that a preview looks at before it says "at least"
SHOWN = 10  # groups, samples and refusals that are told one by one
_PREVIEW = "select worker.bulk_preview($1, $2, $3, $4)"
_BEGIN = "select worker.bulk_begin($1, $2, $3, $4, $5)"

OfType = Annotated[str | None, typer.Option("--type", help="Many: of this type.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Many: of this tenant.")]
WithError = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Many: whose last error contains this, in any case.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Many: show what would be done, and do nothing.")]


class Order(NamedTuple):
    """A bulk as it was asked for."""

    verb: Verb
    filter: dict[str, str]
    rate: float | None = None  # jobs a second
    fresh: bool = False
    reason: str | None = None
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False


def wanted(**given: str | None) -> dict[str, str]:
    """The filter: what was given of it."""
    return {name: text for name, text in given.items() if text is not None}


def carry_out(config: "Config", order: Order) -> bool:
    """Show, ask, do and tell; False when somebody said no or some jobs were refused."""
    from worker.cli.reach import go

    return go(_carry_out(config, order))


async def _carry_out(config: "Config", order: Order) -> bool:
    import orjson

    from worker.cli.ask import agreed
    from worker.cli.paper import put, put_json
    from worker.cli.reach import reached

    async with reached(config) as connection:
        filter = orjson.dumps(await _dated(connection, order.filter)).decode()
        found = orjson.loads(await connection.fetchval(_PREVIEW, order.verb, filter, SHOWN, LOOK))
        if order.dry_run:
            put_json(found) if order.as_json else put(
                "\n".join([_deed(order, found), *_groups(found), *_sample(found)])
            )
            return True
        answer: dict[str, Any] = {"bulk": None, "count": found["count"], "done": 0, "refused": 0, "refusals": []}
        if found["count"]:
            if not order.yes:
                print("\n".join([*_groups(found), *_sample(found)]), file=sys.stderr)
            if not agreed(_deed(order, found), config, order.yes):
                return False
            answer |= await _pages(connection, order, filter, found["count"])
    if order.as_json:
        put_json(answer)
    else:
        _tell(order, answer)
    return not answer["refused"]


async def _dated(connection: "asyncpg.Connection", filter: dict[str, str]) -> dict[str, str]:
    """The filter with instants by the database's clock: `24h` is that long ago, anything else stays as it is."""
    from datetime import timedelta

    from worker.config import duration

    dated = dict(filter)
    for name in {"since", "until"} & set(filter):
        try:
            span = timedelta(seconds=duration.parse(filter[name]))
        except ValueError:
            continue
        dated[name] = (await connection.fetchval("select worker.now() - $1::interval", span)).isoformat()
    return dated


async def _pages(connection: "asyncpg.Connection", order: Order, filter: str, count: int) -> dict[str, Any]:
    """Page after page, with a bar on a terminal."""
    import orjson

    from worker.cli.paper import advancing

    bulk = await connection.fetchval(_BEGIN, order.verb, filter, order.rate, order.fresh, order.reason)
    answer: dict[str, Any] = {"bulk": bulk, "done": 0, "refused": 0, "refusals": []}
    with advancing(order.verb, count) as advance:
        more = True
        while more:
            page = await connection.fetchrow("select * from worker.bulk_page($1, $2)", bulk, PAGE)
            assert page is not None
            more = page["more"]
            answer["done"] += page["done"]
            answer["refused"] += page["refused"]
            answer["refusals"] += orjson.loads(page["refusals"])
            advance(page["done"] + page["refused"])
    return answer


def _deed(order: Order, found: dict[str, Any]) -> str:
    """What would be done: `retry 5 failed report jobs, 10 a second; finished steps are kept`."""
    types = {group["job_type"] for group in found["groups"]}
    statuses = sorted({group["status"] for group in found["groups"]})
    what = " ".join([*(statuses if len(statuses) == 1 else []), *(types if len(types) == 1 else [])])
    deed = f"{order.verb} {'at least ' if found['more'] else ''}{_jobs(found['count'], what)}"
    if order.verb == "cancel":
        return f"{deed}; running ones are asked to end" if "running" in statuses else deed
    steps = "from their first step" if order.fresh else "finished steps are kept"
    return f"{deed}{_spread(order.rate, found['count'])}; {steps}"


def _jobs(count: int, what: str = "") -> str:
    return f"{count} {what}{' ' if what else ''}job{'' if count == 1 else 's'}"


def _spread(rate: float | None, count: int) -> str:
    from worker.cli.paper import lasting

    return f", due over {lasting(max(count - 1, 0) / rate)}" if rate else ""


def _groups(found: dict[str, Any]) -> "Iterator[str]":
    from worker.cli.paper import shown

    for group in found["groups"][:SHOWN]:
        yield f"  {group['count']:>8}  {group['job_type']}: {shown(group['finish_reason'] or group['status'])}"
    if len(found["groups"]) > SHOWN:
        rest = sum(group["count"] for group in found["groups"][SHOWN:])
        yield f"  {rest:>8}  of others"


def _sample(found: dict[str, Any]) -> "Iterator[str]":
    from worker.cli.paper import shown

    for job in found["sample"]:
        yield f"  such as job {job['id']} ({job['job_type']}) {shown(job['error'])}".rstrip()


def _tell(order: Order, answer: dict[str, Any]) -> None:
    from worker.cli.paper import put
    from worker.log import safe

    if not answer["count"]:
        put(f"no job to {order.verb}")
        return
    become = "pending" if order.rate else "pending and due"
    put(f"{_jobs(answer['done'])} {'are ' + become if order.verb == 'retry' else 'cancelled, or asked to end'}")
    for refusal in answer["refusals"][:SHOWN]:
        print(f"worker: {safe(refusal['message'])}", file=sys.stderr)
    if answer["refused"]:
        print(f"worker: {_jobs(answer['refused'])} refused", file=sys.stderr)
