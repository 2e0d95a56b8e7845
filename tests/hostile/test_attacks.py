"""Everything in the list of attacks is tried by everybody it names: none may come to more than the list says."""

import io
import json
import os
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.hostile import attack_catalogue
from tests.hostile.attack import T1, Attack, Ground, ground
from tests.hostile.attack_list import LISTS

CATALOGUE = (attack_catalogue.calls, attack_catalogue.columns, attack_catalogue.relations)
NIGHTLY = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "zone": "UTC",
    "job": "mail",
    "missed": "last",
    "max_catch_up": 1,
    "digest": "1",
}


@pytest.fixture
async def place(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[Ground]:
    if "DATABASE_URL" in os.environ:
        pytest.skip("logins without a password are for our own server")
    async with ground(dsn, connection) as made:
        yield made


@pytest.mark.parametrize("named", LISTS)
async def test_no_attack_of_the_list_passes(place: Ground, named: str) -> None:
    assert not (passed := await place.tried(LISTS[named])), "\n".join(passed)


@pytest.mark.parametrize("made", CATALOGUE)
async def test_no_attack_on_anything_in_the_catalogue_passes(place: Ground, connection, made) -> None:
    attacks: list[Attack] = await made(connection)
    assert len(attacks) > 50
    assert not (passed := await place.tried(attacks)), "\n".join(passed)


@pytest.mark.parametrize(
    ("breach", "seen"),
    [
        ("alter table worker.job_queue disable row level security", "reads the table"),
        ("alter view worker.jobs reset (security_invoker)", "reads the view"),
        ("grant update (payload) on worker.job_queue to worker_tenant", "updates payload"),
        ("grant insert (enqueued_by) on worker.job_queue to worker_enqueue", "inserts enqueued_by"),
        ("grant truncate on worker.job_queue to worker_tenant", "truncates job_queue"),
        ("grant execute on function worker.retry(bigint, boolean) to worker_enqueue", "calls worker.retry"),
        ("grant select on worker.process to worker_tenant", "reads the daemons processes"),
        ("create function worker.made_later() returns void language sql as ''", "calls worker.made_later()"),
        (
            "alter table worker.job_queue add made_later text;"
            "grant insert (made_later) on worker.job_queue to worker_tenant",
            "inserts made_later",
        ),
    ],
)
async def test_the_judge_sees_a_breach(place: Ground, connection, breach: str, seen: str) -> None:
    await connection.execute(breach)
    attacks = [attack for every in LISTS.values() for attack in every]
    for made in CATALOGUE:
        attacks += await made(connection)
    found = [attack for attack in attacks if attack.what.startswith(seen)]
    assert found
    assert any(seen in line for line in await place.tried(found))


async def test_a_locked_table_waits_for_no_reader_only_for_who_may_read(place: Ground, connection) -> None:
    """LOCK in the weakest mode is what a SELECT takes: whoever may not read may not take that either."""
    for name in ("process", "job_event", "kept", "schedule"):
        weakest = Attack(
            f"locks {name}", attack_catalogue.PRODUCERS, (f"lock table worker.{name} in access share mode",), "42501"
        )
        assert await place.tried([weakest]) == []


async def test_copy_shows_a_tenants_own_rows_and_takes_none(place: Ground) -> None:
    tenant = place.session("tenant")
    await tenant.execute("select set_config('request.jwt.claims', $1, false)", T1)
    shown = io.BytesIO()
    await tenant.copy_from_table("job_queue", schema_name="worker", columns=["id"], output=shown)
    assert sorted(map(int, shown.getvalue().split())) == list(range(101, 107))
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="row-level security"):
        await tenant.copy_to_table(
            "job_queue", schema_name="worker", columns=["job_type"], source=io.BytesIO(b"mail\n")
        )


async def test_locks_that_strangers_hold_stop_nothing(place: Ground, connection) -> None:
    """Anybody may take any advisory lock: the daemon's duties go on."""
    stranger = place.session("nobody")
    for what in ("worker.prune", "worker.schedule nightly"):
        await stranger.execute("select pg_advisory_lock(hashtextextended($1, 0))", what)
    assert await connection.fetchval("select gone from worker.prune('{\"completed\": 0}')") == 5
    await connection.fetch("select * from worker.declare_schedules($1::jsonb, '{mail}')", json.dumps([NIGHTLY]))
    await connection.execute("update worker.schedule set next_at = '2026-01-01'")
    assert await connection.fetchval("select worker.take_schedule('nightly', '2026-01-01', null)") == ""


async def test_locks_that_a_daemon_holds_are_respected(place: Ground, connection) -> None:
    await place.session("runner").execute("select pg_advisory_lock(hashtextextended('worker.prune', 0))")
    assert await connection.fetchval("select gone from worker.prune('{\"completed\": 0}')") == 0


async def test_nobody_outside_acts_in_anothers_name(place: Ground, connection) -> None:
    """A program of the operators may name whom it acts for; an application that cancels its own job may not."""
    app = place.session("app")
    for name, value in {"actor": "web:admin", "bulk": "7", "enqueuer": "worker_owner", "audit": "off"}.items():
        await app.execute(f"set worker.{name} = '{value}'")
    await app.execute("select worker.cancel(401)")
    job = await app.fetchval("select worker.enqueue('internal')")
    told = (
        "select event, actor, detail ->> 'login', detail ->> 'bulk' from worker.job_event"
        " where job_id = $1 and event <> 'seen'"
    )
    me = place.roles["app"]
    assert await connection.fetchrow(told, 401) == ("cancel", me, None, None)
    assert await connection.fetchrow(told, job) == ("enqueued", me, None, None)


async def test_what_protects_is_on_for_every_object(connection) -> None:
    """So that a new table, view or function is not forgotten."""
    plain = await connection.fetch(
        "select relname from pg_class where relnamespace = 'worker'::regnamespace and relkind = 'v'"
        " and not coalesce(reloptions @> '{security_invoker=true}', false)"
    )
    assert [name for (name,) in plain] == ["bulk"]  # it has no rows
    loose = await connection.fetch(
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'worker'::regnamespace and p.prosecdef"
        " and not coalesce(proconfig @> array['search_path=pg_catalog, pg_temp'], false)"
    )
    assert loose == []
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'worker'::regnamespace and relkind = 'r'"
        " and relrowsecurity and relforcerowsecurity"
    )
    assert {"job_queue", "job_step"} <= {name for (name,) in tables}
    # Tables without policies: what a tenant or an application may read of them is no tenant's.
    readable = await connection.fetch(
        "select c.relname from pg_class c, unnest(array['worker_tenant', 'worker_enqueue']) who"
        " where c.relnamespace = 'worker'::regnamespace and c.relkind = 'r' and not c.relrowsecurity"
        " and has_any_column_privilege(who, c.oid, 'select') group by 1 order by 1"
    )
    assert [name for (name,) in readable] == ["clock", "job_type"]
