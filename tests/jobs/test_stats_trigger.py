"""A finished match enqueues one stats_update for its club, in its own transaction."""

import json

import asyncpg
import pytest

from tests.jobs.stats_database import install
from worker.demo.club import generate
from worker.demo.tables import finish_match, load


@pytest.fixture
async def club(connection: asyncpg.Connection):
    """Two clubs with the same numbers, loaded before the trigger is there."""
    await install(connection)
    made = generate(4, players=20, matches=10, tenants=2, seasons=1)
    await load(connection, made)
    await install(connection, trigger=True)
    return made


async def jobs(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from worker.job_queue where job_type = 'stats_update' order by id")


async def test_a_plain_update_enqueues_one_job(connection, club):
    tenant_id = club.tenants[1].id
    match_id = await finish_match(connection, tenant_id)
    (job,) = await jobs(connection)
    assert json.loads(job["payload"]) == {
        "tenant_id": str(tenant_id),
        "match_id": match_id,
        "triggeredBy": "post-match",
    }
    assert (job["priority"], job["source"]) == (50, "match")


async def test_a_statement_over_many_matches_enqueues_once_a_club_in_order(connection, club):
    await connection.execute(
        "update club.match set status = 'finished', team_a_score = 1, team_b_score = 0 where status = 'scheduled'"
    )
    payloads = [json.loads(job["payload"]) for job in await jobs(connection)]
    assert [payload["tenant_id"] for payload in payloads] == sorted(str(tenant.id) for tenant in club.tenants)
    assert {payload["match_id"] for payload in payloads} == {15}  # the latest of each


async def test_a_rollback_takes_the_job_along(connection, club):
    transaction = connection.transaction()
    await transaction.start()
    await finish_match(connection, club.tenants[0].id)
    assert len(await jobs(connection)) == 1
    await transaction.rollback()
    assert await jobs(connection) == []


async def test_many_statements_leave_one_waiting_job_a_club_once_the_type_is_declared(connection, club):
    declared = [{"name": "stats_update", "unique_key": "stats", "concurrency_key": "stats:{tenant_id}"}]
    await connection.fetch("select * from worker.declare($1::jsonb)", json.dumps(declared))
    for _ in range(4):
        for tenant in club.tenants:
            await finish_match(connection, tenant.id)
    waiting = await jobs(connection)
    assert sorted(job["tenant_id"] for job in waiting) == sorted(str(tenant.id) for tenant in club.tenants)


@pytest.mark.parametrize(
    "statement",
    [
        "update club.match set played_on = played_on + 1 where status = 'scheduled'",
        "update club.match set team_a_score = team_a_score where status = 'finished'",
        "update club.match set team_a_score = 9 where status = 'scheduled'",
        "delete from club.match where status = 'scheduled'",
        "update club.player_match set goals = goals + 1 where match_id > 10",  # goals of a match being played
        "update club.player_match set goals = goals",
        "insert into club.match (tenant_id, season_id, played_on) select tenant_id, 1, '2016-12-31' from club.season",
    ],
)
async def test_what_changes_no_result_enqueues_nothing(connection, club, statement):
    await connection.execute(statement)
    assert await jobs(connection) == []


@pytest.mark.parametrize(
    "statement",
    [
        "update club.match set team_a_score = team_a_score + 1 where id = 3",
        "update club.match set status = 'scheduled' where id = 3",
        "update club.match set played_on = played_on + 1 where id = 3",
        "delete from club.match where id = 3",
        "insert into club.match (tenant_id, season_id, played_on, status, team_a_score, team_b_score)"
        " select tenant_id, 1, '2016-12-31', 'finished', 1, 0 from club.season",
        "update club.player_match set goals = goals + 1 where match_id = 3",
        "update club.player_match set team = case team when 'a' then 'b' else 'a' end where match_id = 3",
        "delete from club.player_match where match_id = 3 and team = 'a'",
    ],
)
async def test_what_changes_a_result_enqueues_one_job_a_club(connection, club, statement):
    await connection.execute(statement)
    tenants = [json.loads(job["payload"])["tenant_id"] for job in await jobs(connection)]
    assert tenants == sorted(str(tenant.id) for tenant in club.tenants)


async def test_who_may_enter_a_match_need_not_be_allowed_to_use_the_queue(connection, club):
    async with connection.transaction():
        await connection.execute("create role scorer_of_the_trigger_test nologin")
        await connection.execute("grant usage on schema club, demo to scorer_of_the_trigger_test")
        await connection.execute("grant select, update on all tables in schema club to scorer_of_the_trigger_test")
        await connection.execute("set local role scorer_of_the_trigger_test")
        await finish_match(connection, club.tenants[0].id)
        await connection.execute("reset role")
        await connection.execute("drop owned by scorer_of_the_trigger_test")
        await connection.execute("drop role scorer_of_the_trigger_test")
    assert len(await jobs(connection)) == 1
