"""Jobs found by filters, in bounded looks; and what the first page reads."""

import asyncpg
import orjson
import pytest

from tests.browser.world import TOML
from tests.heart import configured
from tests.web.painted import paint

FIND = "select worker.find_jobs({})"
NAIVE = """
    select coalesce(array_agg(j.id order by j.id desc), '{{}}') from worker.job_queue j where {}
"""


@pytest.fixture
async def evening(connection: asyncpg.Connection, dsn, tmp_path) -> asyncpg.Connection:
    await paint(connection, configured(tmp_path, dsn, TOML))
    return connection


async def found(connection: asyncpg.Connection, arguments: str) -> tuple[list[int], int, int | None]:
    told = orjson.loads(await connection.fetchval(FIND.format(arguments)))
    return [job["id"] for job in told["jobs"]], told["looked"], told["next"]


@pytest.mark.parametrize(
    ("arguments", "means"),
    [
        ("", "true"),
        ("status => 'failed'", "status = 'failed'"),
        ("status => 'cancelled', job_type => 'send_receipt'", "status = 'cancelled' and job_type = 'send_receipt'"),
        ("status => 'running'", "status = 'running'"),
        ("status => 'pending'", "status = 'pending'"),
        ("status => 'pending', job_type => 'resize_image'", "status = 'pending' and job_type = 'resize_image'"),
        ("tenant_id => 'club-2', status => 'completed'", "tenant_id = 'club-2' and status = 'completed'"),
        ("job_type => 'sync_orders'", "job_type = 'sync_orders'"),
        ("search => 'CONNECTTIMEOUT'", "errors -> -1 ->> 'message' ilike '%connecttimeout%'"),
        ("search => 'no_op'", "finish_reason = 'no_op'"),
        ("search => '12'", "id = 12 or tenant_id like '%12%' or correlation_id like '%12%'"),
        ("search => '%'", "false"),
        ("status => 'failed', since => now() - '1 h'::interval", "id = 362"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("most", [20000, 7])
async def test_every_page_together_is_all_that_match_once(
    evening: asyncpg.Connection, arguments: str, means: str, most: int
) -> None:
    seen: list[int] = []
    before: int | None = None
    for _ in range(500):
        more = "" if before is None else f", before_id => {before}"
        jobs, looked, before = await found(
            evening, f"{arguments}{', ' if arguments else ''}n => 5, most => {most}{more}"
        )
        assert len(jobs) <= 5
        assert looked <= most
        seen += jobs
        if before is None:
            break
    wanted = await evening.fetchval(NAIVE.format(means))
    assert seen == wanted


async def test_a_payload_is_never_looked_into(evening: asyncpg.Connection) -> None:
    jobs, _, more = await found(evening, "search => 'hunter2'")
    assert (jobs, more) == ([], None)


async def test_readers_may_read_it_all_and_tenants_nothing_of_it(evening: asyncpg.Connection) -> None:
    calls = ("worker.find_jobs()", "worker.overview()", "worker.job_page(350)", "worker.type_overview()")
    await evening.execute("set role worker_read")
    for call in calls:
        assert await evening.fetchval(f"select {call}") is not None
    await evening.execute("reset role; set role worker_tenant")
    for call in calls:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await evening.fetchval(f"select {call}")
    await evening.execute("reset role")


async def test_the_overview_counts_what_is_there(evening: asyncpg.Connection) -> None:
    seen = orjson.loads(await evening.fetchval("select worker.overview()"))
    types = {each["job_type"]: each for each in seen["types"]}
    assert (types["resize_image"]["due"], types["resize_image"]["paused"], types["resize_image"]["limit"]) == (
        14,
        True,
        4,
    )
    assert (types["old_import"]["declared"], types["old_import"]["due"], types["old_import"]["daemons"]) == (
        False,
        2,
        0,
    )
    assert (types["send_receipt"]["due"], types["send_receipt"]["later"]) == (0, 2)
    assert {name: each["running"] for name, each in types.items() if each["running"]} == {
        "stats_update": 1,
        "sync_orders": 1,
    }
    assert [(each["state"], each["running"]) for each in seen["daemons"]] == [("alive", 1), ("alive", 1)]
    assert [(each["job_type"], each["jobs"]) for each in seen["failures"]] == [("sync_orders", 1), ("send_receipt", 6)]
    assert {each["name"] for each in seen["schedules"]} == {"nightly_stats", "hourly_orders"}


async def test_counts_stop_at_their_bound(connection: asyncpg.Connection) -> None:
    await connection.execute("select worker.enqueue_many('crowd', array_fill('{}'::jsonb, array[5050]))")
    (crowd,) = orjson.loads(await connection.fetchval("select worker.type_overview()"))
    assert crowd["due"] == 5_000


async def test_the_page_of_a_job_tells_what_an_earlier_attempt_did_and_what_is_usual(
    evening: asyncpg.Connection,
) -> None:
    told = orjson.loads(await evening.fetchval("select worker.job_page(350)"))
    assert len(told["earlier"]) == 9
    assert "hall_of_fame" not in told["earlier"]
    assert told["usual"]["match_report"] == pytest.approx(0.42)
    assert [(each["id"], each["job_type"]) for each in told["family"]] == [(351, "invalidate_cache")]
    assert told["explained"]["code"] == "done"
    child = orjson.loads(await evening.fetchval("select worker.job_page(351)"))
    assert child["parent"]["id"] == 350
    assert await evening.fetchval("select worker.job_page(999999)") is None
