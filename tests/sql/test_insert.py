"""A plain INSERT is as good as worker.enqueue, whoever writes it and from wherever."""

import contextlib
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused

Session = Callable[..., Awaitable[Queue]]

INSERT = "insert into worker.job_queue (job_type, payload) values ('report', '{\"number\": 1}')"
GRANTED = {
    "job_type": "'report'",
    "payload": "'{}'",
    "scheduled_at": "now()",
    "priority": "100",
    "unique_key": "'k'",
    "on_conflict": "'keep'",
    "concurrency_key": "'k'",
    "tenant_id": "'t1'",
    "max_attempts": "5",
    "expires_at": "now()",
    "correlation_id": "'c'",
    "traceparent": "'p'",
    "source": "'s'",
}

FORBIDDEN = (
    "insert into worker.job_queue (job_type, status) values ('report', 'completed')",
    "insert into worker.job_queue (job_type, enqueued_by) values ('report', 'somebody')",
    "insert into worker.job_queue (id, job_type) overriding system value values (1, 'report')",
    "insert into worker.job_queue (job_type, claim) values ('report', 1)",
    "insert into worker.job_queue (job_type, attempt) values ('report', 9)",
    "insert into worker.job_queue (job_type, held_key) values ('report', 'k')",
    "update worker.job_queue set status = 'completed'",
    "update worker.job_queue set payload = '{}'",
    "update worker.job_queue set enqueued_by = current_user",
    "update worker.job_queue set finished_at = now()",
    "delete from worker.job_queue",
    "truncate worker.job_queue",
    "do $$ begin lock table worker.job_queue in access exclusive mode; end $$",
    "create trigger mine before insert on worker.job_queue execute function worker.ring()",
    "insert into worker.job_type (name) values ('mine')",
    "update worker.job_type set paused = true",
    "insert into worker.kept (job_id) values (1)",
    "insert into worker.clock (at) values (now())",
    "insert into worker.job_step (job_id, name, status, claim) values (1, 'a', 'completed', 1)",
    "delete from worker.key_slot",
    "select from worker.process",
    "select from worker.kept",
    "select nextval('worker.claim_seq')",
    "create table worker.mine ()",
    "set role worker_owner",
    "alter table worker.job_queue disable row level security",
    "drop policy owner_all on worker.job_queue",
)


class TestPlain:
    async def test_type_and_payload_are_enough(self, queue: Queue) -> None:
        await queue.declare("report", priority=7, unique_key="r:{number}")
        assert await queue.db.execute(INSERT) == "INSERT 0 1"
        (job,) = await queue.take()
        assert (job["job_type"], job["payload"], job["priority"]) == ("report", '{"number": 1}', 7)

    async def test_even_the_type_alone(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.db.execute("insert into worker.job_queue (job_type) values ('report')")
        assert [job["payload"] for job in await queue.take()] == ["{}"]

    async def test_null_is_filled_like_what_is_left_out(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", priority=7)
        await queue.db.execute(
            "insert into worker.job_queue (job_type, scheduled_at, priority, correlation_id, max_attempts)"
            " values ('report', null, null, null, null)"
        )
        (row,) = await queue.db.fetch("select * from worker.job_queue")
        assert (row["scheduled_at"], row["priority"], row["max_attempts"]) == (NOON, 7, 5)

    @pytest.mark.parametrize("on_conflict", ["keep", "replace"])
    async def test_a_held_key_adds_nothing_and_returns_nothing(self, queue: Queue, on_conflict: str) -> None:
        await queue.declare("report", unique_key="one", on_conflict=on_conflict)
        await queue.enqueue("report", {"old": 1})
        assert await queue.db.fetch(f"{INSERT} returning id") == []
        assert await queue.db.execute(INSERT) == "INSERT 0 0"
        (row,) = await queue.db.fetch("select payload from worker.job_queue")
        assert row["payload"] == ('{"old": 1}' if on_conflict == "keep" else '{"number": 1}')

    async def test_a_held_key_is_refused_when_the_type_says_so(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one", on_conflict="refuse")
        holder = await queue.enqueue("report")
        with refused("WK003") as error:
            await queue.db.execute(INSERT)
        assert error.value.detail == str(holder)

    async def test_many_rows_with_one_key_become_one(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="{n}")
        answer = await queue.db.execute(
            "insert into worker.job_queue (job_type, payload)"
            " select 'report', jsonb_build_object('n', n % 3) from generate_series(1, 30) n"
        )
        assert answer == "INSERT 0 3"

    async def test_an_uncommitted_holder_fails_the_statement_with_the_name_of_the_index(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.declare("report", unique_key="one")
        other, observer = await session(), await session()
        change = other.db.transaction()
        await change.start()
        await other.enqueue("report")
        async with blocked(observer, queue, queue.db.execute(INSERT)) as task:
            await change.commit()
            with refused("23505", "job_queue_held"):
                await task

    async def test_a_row_keeps_what_was_declared_when_it_came(self, queue: Queue) -> None:
        """The first declaration changes no row either: its 5 attempts may be what the producer asked for."""
        early, asked = await queue.enqueue("later"), await queue.enqueue("later", max_attempts=5)
        await queue.declare("later", max_attempts=9, priority=7, concurrency_key="one")
        late = await queue.enqueue("later")
        rows = {id: await queue.row(id) for id in (early, asked, late)}
        assert [rows[id]["max_attempts"] for id in (early, asked, late)] == [5, 5, 9]
        assert [(rows[id]["priority"], rows[id]["concurrency_key"]) for id in (early, late)] == [
            (100, None),
            (7, "one"),
        ]

    async def test_on_conflict_is_not_kept_on_the_row(self, queue: Queue) -> None:
        row = await queue.row(await queue.enqueue(on_conflict="replace"))
        assert row["on_conflict"] is None


class TestApplications:
    async def test_insert_and_returning_under_forced_row_level_security(self, queue: Queue, session: Session) -> None:
        forced = await queue.db.fetchrow(
            "select relrowsecurity, relforcerowsecurity from pg_class where oid = 'worker.job_queue'::regclass"
        )
        assert tuple(forced) == (True, True)
        app = await session("app")
        first = await app.db.fetchval(f"{INSERT} returning id")
        second = await app.enqueue("report")
        assert await app.db.fetch("select id from worker.job_queue order by id") == [(first,), (second,)]
        row = await queue.row(first)
        assert row["enqueued_by"] == await app.db.fetchval("select current_user")

    async def test_enqueue_answers_with_a_holder_of_another_application(self, queue: Queue, session: Session) -> None:
        await queue.declare("report", unique_key="one")
        app, other = await session("app"), await session("other_app")
        holder = await app.enqueue("report")
        assert await other.enqueue("report", priority=1) == holder
        assert await other.db.fetch("select id from worker.jobs") == []
        assert (await queue.row(holder))["priority"] == 1

    async def test_a_trigger_on_a_tenants_table(self, queue: Queue, session: Session, roles: dict[str, str]) -> None:
        await queue.declare("report", unique_key="match:{match}")
        await queue.db.execute(f"""
            create schema club;
            create table club.match (id int, tenant_id text);
            grant usage on schema club to {roles["app"]}, {roles["tenant"]};
            grant insert on club.match to {roles["tenant"]};
            create function club.played() returns trigger language plpgsql security definer
              set search_path = pg_catalog, pg_temp as $$
            begin
              insert into worker.job_queue (job_type, payload)
              values ('report', jsonb_build_object('match', new.id, 'tenant_id', new.tenant_id));
              perform worker.enqueue('report', jsonb_build_object('match', new.id, 'tenant_id', new.tenant_id));
              return null;
            end $$;
            alter function club.played() owner to {roles["app"]};
            create trigger played after insert on club.match for each row execute function club.played();
        """)
        tenant = await session("tenant")
        await tenant.db.execute("insert into club.match values (1, 't1'), (2, 't1'), (1, 't2')")
        rows = await queue.db.fetch("select unique_key, tenant_id, enqueued_by from worker.job_queue order by id")
        app = roles["app"]
        assert rows == [("match:1", "t1", app), ("match:2", "t1", app), ("match:1", "t2", app)]

    async def test_exactly_the_promised_columns_may_be_given(self, queue: Queue, session: Session) -> None:
        app = await session("app")
        columns = await queue.db.fetch(
            "select attname from pg_attribute where attrelid = 'worker.job_queue'::regclass and attnum > 0"
        )
        accepted = set()
        for (column,) in columns:
            value = GRANTED.get(column, "default")
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                await app.db.execute(f"explain insert into worker.job_queue ({column}) values ({value})")
                accepted.add(column)
        assert accepted == set(GRANTED)

    @pytest.mark.parametrize("who", ["app", "tenant"])
    async def test_everything_else_is_refused(self, queue: Queue, session: Session, who: str) -> None:
        await queue.enqueue("report")
        before = await queue.db.fetch("select * from worker.job_queue")
        one = await session(who)
        for statement in FORBIDDEN:
            with refused("42501"):
                await one.db.execute(statement)
        assert await queue.db.fetch("select * from worker.job_queue") == before

    async def test_the_right_to_cancel_locks_ones_own_rows_only(self, queue: Queue, session: Session) -> None:
        await queue.enqueue("report")
        app = await session("app")
        mine = await app.enqueue("report")
        assert await app.db.fetch("select id from worker.job_queue for update") == [(mine,)]
        with refused("42501"):
            await (await session("tenant")).db.execute("select from worker.job_queue for update")


class TestChecks:
    @pytest.mark.parametrize(
        ("column", "good", "bad"),
        [
            ("job_type", ["a", "a" * 63, "a_2"], ["", "a" * 64, "A", "2a", "_a", "a-b", "a b", "ä", "a\n", None]),
            ("priority", [0, 1000], [-1, 1001]),
            ("max_attempts", [1, 10000], [0, -1, 10001]),
            ("scheduled_at", ["2000-01-01 00:00+00", "9000-01-01 00:00+00"],
             ["1999-12-31 23:59+00", "9000-01-01 00:01+00", "infinity", "-infinity", "4000-01-01 BC", "294000-01-01"]),
            ("expires_at", ["2000-01-01 00:00+00"], ["infinity", "-infinity", "1999-01-01", "9999-01-01"]),
            ("unique_key", ["", "k" * 500, "ü" * 250], ["k" * 501, "ü" * 251]),
            ("concurrency_key", ["k" * 500], ["k" * 501]),
            ("tenant_id", ["k" * 200], ["k" * 201]),
            ("correlation_id", ["k" * 200], ["k" * 201]),
            ("traceparent", ["k" * 200], ["k" * 201]),
            ("source", ["k" * 200], ["k" * 201]),
            ("on_conflict", ["keep"], ["merge", ""]),
        ],
    )  # fmt: skip
    async def test_bound_what_a_producer_can_touch(
        self, queue: Queue, column: str, good: list[object], bad: list[object]
    ) -> None:
        async def insert(value: object) -> None:
            named = {"job_type": "report", column: value}
            values = ", ".join("null" if each is None else "'" + str(each) + "'" for each in named.values())
            await queue.db.execute(f"insert into worker.job_queue ({', '.join(named)}) values ({values})")

        for value in good:
            await insert(value)
        for value in bad:
            with refused("23502" if value is None else "23514"):
                await insert(value)
        assert await queue.count() == len(good)

    @pytest.mark.parametrize(
        ("letter", "times", "fits"),
        [("a", 65_527, True), ("a", 65_528, False), ("ü", 32_763, True), ("ü", 32_764, False)],
    )
    async def test_a_payload_has_at_most_65536_bytes(self, queue: Queue, letter: str, times: int, fits: bool) -> None:
        payload = {"a": letter * times}  # nine bytes more as text
        if fits:
            assert await queue.enqueue("report", payload)
        else:
            with refused("23514", "payload"):
                await queue.enqueue("report", payload)

    async def test_a_state_that_contradicts_itself_cannot_be_written(self, queue: Queue) -> None:
        await queue.declare("report")
        job = await queue.enqueue("report")
        for change in (
            "status = 'running', queued = false",
            "queued = false",
            "parked = true",
            "status = 'completed', queued = false",
            "finished_at = now()",
            "trouble = true",
            "status = 'failed', queued = false, finished_at = now()",
            "status = 'lost'",
        ):
            with refused("23514"):
                await queue.db.execute(f"update worker.job_queue set {change} where id = {job}")

    async def test_a_final_row_may_be_inserted_by_the_owner_only_as_it_stands(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one")
        await queue.db.execute(
            "insert into worker.job_queue (job_type, status, queued, finished_at)"
            " values ('report', 'completed', false, now())"
        )
        assert await queue.enqueue("report")
        assert [job["job_type"] for job in await queue.take()] == ["report"]
