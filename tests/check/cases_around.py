"""What is broken around the database: its sessions, its server, the way to it, worker.toml and what that names."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import asyncpg

from tests.bouncer import bouncer
from tests.check.cases import Act, Case
from tests.check.cases_file import file
from tests.check.ward import JOBS, Ward
from worker.check import Limits
from worker.check.release import release

ALONE = '[job.fine]\npython = "tests.cli.handlers:fine"\n'
READER = ("revoke pg_read_all_stats from watchman",)


def limits(**given: float) -> Callable[[Act], Act]:
    """For which it is found at once what else takes its time."""

    def over(act: Act) -> Act:
        async def both(ward: Ward) -> None:
            ward.limits = Limits(**given)  # type: ignore[arg-type]
            await ward.execute("grant pg_read_all_stats to watchman")
            await act(ward)

        return both

    return over


async def half_an_index(ward: Ward) -> None:
    (statement,) = [each["statement"] for each in release()["indexes"] if each["name"] == "job_queue_trouble"]
    await ward.execute("drop index worker.job_queue_trouble", "set statement_timeout = '300ms'")
    holder = await ward.other()
    await holder.execute("begin; lock table worker.job_queue in row exclusive mode")
    try:
        await ward.execute(statement.replace("create index", "create index concurrently"))
    except asyncpg.QueryCanceledError:
        await ward.execute("reset statement_timeout")
    await holder.execute("rollback")


@limits()
async def locked(ward: Ward) -> None:
    await (await ward.other()).execute("begin; lock table worker.turn in access exclusive mode")


@limits(seconds=0)
async def open_transaction(ward: Ward) -> None:
    await (await ward.other()).execute("begin; select 1")


@limits(seconds=0)
async def prepared(ward: Ward) -> None:
    await ward.execute("begin; select 1; prepare transaction 'stuck'")


@limits(wal=-1)
async def forgotten_slot(ward: Ward) -> None:
    await ward.execute("select pg_create_physical_replication_slot('forgotten', true)")


@limits(notifications=0)
async def deaf_listener(ward: Ward) -> None:
    listener = await ward.other()
    await listener.execute("listen anything")
    await listener.execute("begin; select 1")
    for number in range(6):
        await ward.execute(f"select pg_notify('anything', repeat('{number}', 7900))")


@limits(dead=10)
async def dead_rows(ward: Ward) -> None:
    await ward.execute(
        "insert into worker.kept (job_id, enqueued_by) select n, 'x' from generate_series(1, 100) n",
        "delete from worker.kept; select pg_stat_force_next_flush()",
    )


@limits(pages=20)
async def bloated(ward: Ward) -> None:
    await ward.execute(
        "insert into worker.kept (job_id, enqueued_by) select n, 'x' from generate_series(1, 15000) n",
        "delete from worker.kept", "vacuum worker.kept",
    )  # fmt: skip


def server(name: str, value: str) -> Act:
    """A setting of the whole server."""

    async def act(ward: Ward) -> None:
        await ward.execute(f"alter system set {name} = {value}", "select pg_reload_conf()")
        await ward.becomes(f"select current_setting('{name}')", value)

    return act


async def a_closed_schema(ward: Ward) -> None:
    await ward.execute("create schema club")
    ward.configure(database='search_path = "public, club"')


async def a_membership_that_is_not_inherited(ward: Ward) -> None:
    if int(await ward.connection.fetchval("show server_version_num")) < 160000:
        await ward.execute("alter role watchman noinherit")
        ward.afterwards.append("alter role watchman inherit")
    else:
        await ward.execute("grant worker_run to watchman with inherit false")
        ward.afterwards.append("grant worker_run to watchman with inherit true")


async def many_daemons(ward: Ward) -> None:
    await ward.execute("select worker.register('h', n, '0', '{fine}', 1, '1 hour') from generate_series(1, 4) n")


def address(url: str) -> Act:
    """Another DATABASE_URL."""

    async def act(ward: Ward) -> None:
        ward.url = url

    return act


async def behind_a_pooler(ward: Ward) -> None:
    dsn = ward.dsn.replace("postgres@", f"{ward.login}@", 1)
    ward.url = ward.leaving.enter_context(bouncer(dsn, "transaction")).dsn


async def behind_a_pooler_without_graphs(ward: Ward) -> None:
    ward.configure(ALONE)
    await behind_a_pooler(ward)


async def straight(ward: Ward) -> None:
    dsn = ward.dsn.replace("postgres@", f"{ward.login}@", 1)
    ward.configure(JOBS, database=f'search_path = "public"\ndirect_url = "{dsn}"')


async def impatient_pooler(ward: Ward) -> None:
    await behind_a_pooler(ward)
    await straight(ward)
    await ward.execute("alter role watchman set statement_timeout = '5s'")


async def another_hour(ward: Ward) -> None:
    ward.patch.setattr("worker.check.clock.time", SimpleNamespace(time=lambda: time.time() - 3600))


async def our_hour(ward: Ward) -> None:
    ward.patch.setattr("worker.check.clock.time", time)


AROUND = (
    Case("schema.index_invalid", half_an_index),
    Case("activity.locked", locked, afterwards=READER),
    Case("activity.transaction", open_transaction, afterwards=READER),
    Case("activity.prepared", prepared, afterwards=READER),
    Case("activity.slot", forgotten_slot,
         afterwards=(*READER, "select pg_drop_replication_slot(slot_name) from pg_replication_slots")),
    Case("activity.notifications", deaf_listener, afterwards=READER),
    Case("storage.dead", dead_rows, afterwards=READER),
    Case("storage.bloat", bloated, afterwards=READER),
    Case("settings.fsync", server("fsync", "off"), afterwards=("alter system reset all", "select pg_reload_conf()")),
    Case("settings.pages", server("full_page_writes", "off"),
         afterwards=("alter system reset all", "select pg_reload_conf()")),
    Case("settings.autovacuum", server("autovacuum", "off"),
         afterwards=("alter system reset all", "select pg_reload_conf()")),
    Case("connections.most", file(database='steps = 100\nsearch_path = "public"'), file()),
    Case("connections.left", many_daemons, "update worker.process set dead_at = now(), emptied_at = now()"),
    Case("database.unreachable", address("postgresql://watchman:geheim@localhost:1/x"), address("")),
    Case("database.direct", file(database='search_path = "public"\ndirect_url = "postgresql://watchman@localhost:1/x"'),
         file()),
    Case("rights.path_missing", file(database='search_path = "public, nowhere"'), file()),
    Case("rights.path_usage", a_closed_schema),
    Case("rights.login", a_membership_that_is_not_inherited, also=("schema.unseen",), name="not_inherited"),
    Case("clock.skew", another_hour, our_hour),
    Case("pooler.steps", behind_a_pooler, straight, also=("notifications.pooler",)),
    Case("pooler.transaction", behind_a_pooler_without_graphs, straight, also=("notifications.pooler",)),
    Case("notifications.pooler", behind_a_pooler_without_graphs, straight, also=("pooler.transaction",)),
    Case("settings.timeout", impatient_pooler, name="behind_a_pooler",
         afterwards=("alter role watchman reset statement_timeout",)),
)  # fmt: skip
