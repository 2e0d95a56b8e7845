"""However a job comes in, one by one or a thousand at once, the same row is written and the same is refused."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, refused
from tests.sql.test_roles import claims

Session = Callable[..., Awaitable[Queue]]

TYPES: tuple[dict[str, Any], ...] = (
    {"name": "plain"},
    {
        "name": "told",
        "priority": 7,
        "max_attempts": 3,
        "expires": 60,
        "unique_while": "active",
        "on_conflict": "refuse",
    },
    {"name": "keyed", "concurrency_key": "c:{tenant_id}:{n}"},
    {"name": "held", "unique_key": "u:{n}"},
    {"name": "called", "coalesce_key": "{n}"},
    {"name": "both", "unique_key": "u:{n}", "concurrency_key": "{job_type}", "priority": 900},
)
NAMES = [*(each["name"] for each in TYPES), "undeclared"]
OBJECTS = [{"n": 1}, {"n": 2, "tenant_id": "t1"}, {"n": 3, "tenant_id": None}, {}, {"n": [1], "ü": "✓"}]
OTHERS: list[Any] = [[1, "tenant_id"], "tenant_id", 7, None, [], {"tenant_id": "t1"}]
DRAWN = {"id", "correlation_id"}  # of their own in every row
WAYS = ("enqueue", "enqueue_many", "insert", "insert_many", "bulk")


async def put(queue: Queue, way: str, job_type: str | None, payloads: list[Any], **more: Any) -> None:
    """Enqueue payloads in one of the ways; more is priority and source."""
    texts = [json.dumps(each) for each in payloads]
    priority, source = more.get("priority"), more.get("source")
    trace = "nullif(current_setting('worker.traceparent', true), '')"
    columns = "insert into worker.job_queue (job_type, payload, priority, source, traceparent)"
    columns += f" select $1, p, $3::integer, $4, {trace}"
    match way:
        case "enqueue":
            for text in texts:
                call = "select worker.enqueue($1, $2::jsonb, priority => $3::integer, source => $4)"
                await queue.db.execute(call, job_type, text, priority, source)
        case "enqueue_many":
            await queue.db.execute(
                "select worker.enqueue_many($1, $2::jsonb[], $3, $4)", job_type, texts, priority, source
            )
        case "insert":
            for text in texts:
                await queue.db.execute(f"{columns} from (select $2::jsonb) one (p)", job_type, text, priority, source)
        case "insert_many":
            await queue.db.execute(f"{columns} from unnest($2::jsonb[]) p", job_type, texts, priority, source)
        case "bulk":
            await queue.db.execute(
                "insert into worker.bulk (job_type, payloads, priority, source, traceparent)"
                f" values ($1, $2::jsonb[], $3, $4, {trace})",
                job_type, texts, priority, source,
            )  # fmt: skip


async def written(owner: Queue) -> list[dict[str, Any]]:
    """The rows in order, without what is drawn for each, and the table is empty again."""
    rows = await owner.db.fetch(
        "with gone as (delete from worker.job_queue returning *) select * from gone order by id"
    )
    assert len({row["correlation_id"] for row in rows}) == len(rows)
    assert {len(row["correlation_id"]) for row in rows} <= {36}
    return [_shared(dict(row)) for row in rows]


def _shared(row: dict[str, Any]) -> dict[str, Any]:
    if row["coalesced"]:  # a key that cannot be filled is the row's own
        row["concurrency_key"] = row["concurrency_key"].replace(row["correlation_id"], "its own")
    return {name: value for name, value in row.items() if name not in DRAWN}


async def outcome(owner: Queue, queue: Queue, way: str, *given: Any, **more: Any) -> Any:
    """What one way comes to: the rows, or the error and no row."""
    try:
        await put(queue, way, *given, **more)
    except asyncpg.PostgresError as error:
        left = await written(owner)
        assert left == [] or way in {"enqueue", "insert"}  # what came one by one before the bad one
        return error.sqlstate, error.args[0].replace("worker.bulk", "").strip()
    return await written(owner)


@pytest.fixture
async def producers(queue: Queue, session: Session) -> dict[str, Queue]:
    """Everybody who may produce, in every state that their tenant depends on; the clock stands."""
    await queue.clock(NOON)
    everybody = {"producers": ["app", "tenant"]}
    await queue.declare_all(*({**each, **everybody} for each in TYPES), {"name": "internal"})
    app, theirs, both, tenant, lost = [await session(who) for who in ("app", "app", "app", "tenant", "tenant")]
    await theirs.db.execute("set worker.tenant = 't1'")
    await both.db.execute("set worker.tenant = 't2'; set worker.traceparent = '00-ab-cd-01'")
    await claims(both, tenant_id="t1")
    await claims(tenant, app_metadata={"tenant_id": "t1"})
    await lost.db.execute("set worker.tenant = 't1'")
    return {"superuser": queue, "app": app, "app of t1": theirs, "app with a token": both, "tenant": tenant,
            "tenant without a claim": lost}  # fmt: skip


@pytest.mark.parametrize("who", ["superuser", "app", "app of t1", "app with a token", "tenant"])
async def test_every_way_writes_the_same_rows(queue: Queue, producers: dict[str, Queue], who: str) -> None:
    for name in NAMES:
        if name == "undeclared" and who == "tenant":
            continue
        for payloads, more in ((OBJECTS, {}), (OTHERS, {"priority": 500})):
            first, *others = [await outcome(queue, producers[who], way, name, payloads, **more) for way in WAYS[:4]]
            assert isinstance(first, list), first
            # By key, and so in another order: the table as a set.
            assert [sorted(each, key=repr) for each in others] == [sorted(first, key=repr)] * 3, name
            if name in ("plain", "told", "undeclared"):
                assert others[0] == first
                assert await outcome(queue, producers[who], "bulk", name, payloads, **more) == first


REFUSED = (
    ("app of t1", "plain", [{"tenant_id": "t2"}], {}, "WK004"),
    ("app of t1", "plain", [{}, {"tenant_id": ""}], {}, "WK004"),
    ("app with a token", "told", [{"tenant_id": "t2"}], {}, "WK004"),
    ("tenant", "plain", [{"tenant_id": "t2"}], {}, "WK004"),
    ("tenant", "plain", [{}, {"tenant_id": 5}], {}, "WK004"),
    ("tenant", "internal", [{}], {}, "WK002"),
    ("tenant", "undeclared", [{}], {}, "WK002"),
    ("tenant", "plain", [{}], {"source": "match"}, "WK005"),
    ("tenant", "plain", [{}], {"priority": 99}, "WK005"),
    ("tenant without a claim", "plain", [{}], {}, "WK004"),
    ("tenant without a claim", "plain", [{"tenant_id": "t1"}], {}, "WK004"),
    ("app", "plain", [{"tenant_id": "t" * 201}], {}, "23514"),
    ("app", "plain", [{"a": "x" * 65_536}], {}, "23514"),
    ("app", "plain", [{}], {"priority": 1001}, "23514"),
    ("app", "plain", [{}], {"priority": 40_000}, "22003"),
    ("app", "plain", [{}], {"source": "s" * 201}, "23514"),
    ("app", "No Type", [{}], {}, "23514"),
    ("app", None, [{}], {}, "23502"),
)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]}-{case[4]}")
async def test_every_way_refuses_the_same(queue: Queue, producers: dict[str, Queue], case: tuple[Any, ...]) -> None:
    who, name, payloads, more, sqlstate = case
    answers = {way: await outcome(queue, producers[who], way, name, payloads, **more) for way in WAYS}
    assert {answer[0] for answer in answers.values()} == {sqlstate}, answers
    assert len(set(answers.values())) == 1, answers


async def test_nothing_at_all_is_nothing(queue: Queue, producers: dict[str, Queue]) -> None:
    for name in NAMES:
        assert await queue.enqueue_many(name) == 0
        assert await queue.db.fetchval("select worker.enqueue_many($1, null)", name) == 0
    assert await producers["tenant"].enqueue_many("internal") == 0


async def test_a_payload_that_is_null_is_refused(queue: Queue) -> None:
    with refused("23502", "payload"):
        await queue.db.execute("select worker.enqueue_many('plain', array['{}', null]::jsonb[])")
    assert await queue.count() == 0


FORGED = (
    "insert into worker.bulk (job_type, payloads, enqueued_by) values ('plain', '{\"{}\"}', 'postgres')",
    "insert into worker.bulk (job_type, payloads, added) values ('plain', '{\"{}\"}', 1)",
    "insert into worker.bulk values ('plain', '{\"{}\"}', 1, null, null, 'postgres')",
    "insert into worker.job_queue (job_type, unique_while) values ('plain', 'waiting')",
    "insert into worker.job_queue (job_type, created_at) values ('plain', now())",
    "select worker.insert_many()",
    "select worker.check_whose('t1', 't1', 't1', true)",
    "create trigger mine instead of insert on worker.bulk for each row execute function worker.insert_many()",
    "alter view worker.bulk alter column enqueued_by set default 'postgres'",
    "create or replace rule mine as on insert to worker.bulk do instead nothing",
    "select * from worker.bulk",
)


@pytest.mark.parametrize("who", ["app", "tenant", "reader", "operator", "runner"])
async def test_who_enqueues_cannot_be_forged(queue: Queue, session: Session, who: str) -> None:
    one = await session(who)
    for statement in FORGED:
        with refused("42501"):
            await one.db.execute(statement)
    assert await queue.count() == 0


async def test_many_belong_to_whoever_calls_also_in_between(
    queue: Queue, session: Session, roles: dict[str, str]
) -> None:
    """An application's SECURITY DEFINER function lends its name, and only its name."""
    await queue.db.execute(f"""
        create schema club;
        grant usage on schema club to {roles["tenant"]};
        create function club.many() returns bigint language sql security definer set search_path = pg_catalog, pg_temp
          as $$ select worker.enqueue_many('internal', array['{{}}', '{{}}']::jsonb[]) $$;
        alter function club.many() owner to {roles["app"]};
    """)
    await queue.declare("internal")
    tenant = await session("tenant")
    assert await tenant.db.fetchval("select club.many()") == 2
    assert await queue.db.fetch("select distinct enqueued_by::text from worker.job_queue") == [(roles["app"],)]


async def test_many_ring_a_sleeper_once(queue: Queue, session: Session) -> None:
    me = await queue.register(["plain"])
    listener = await session()
    heard: list[str] = []
    await listener.db.add_listener("worker", lambda *given: heard.append(given[-1]))
    await queue.db.execute("select worker.sleep($1, 5)", me)
    assert await queue.enqueue_many("plain", *[{}] * 100) == 100
    await listener.db.execute("select")
    assert heard == [str(me)]
