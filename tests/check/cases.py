"""Broken databases, as SQL, and what is found in them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.check.ward import Ward

Act = Callable[[Ward], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One way to break an installation.

    Attributes:
        code: what is found, and nothing else but `also`.
        broken: SQL, or what does it.
        mended: what a person does whom the cure tells to; without it the cure itself is executed.
        afterwards: what is not of one database, and is undone in any case.
    """

    code: str
    broken: str | tuple[str, ...] | Act
    mended: str | tuple[str, ...] | Act | None = None
    also: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.code}-{self.name}" if self.name else self.code


SCHEMA = (
    Case("schema.old", "drop schema worker cascade"),
    Case("schema.old", "delete from worker.migration where name = 'functions/60_settle.sql'", name="a_file"),
    Case("schema.version", "insert into worker.migration values ('migrations/9999_later.sql', 'x')",
         "delete from worker.migration where name = 'migrations/9999_later.sql'"),
    Case("schema.function_missing", "drop function worker.last_results(text[])"),
    Case("schema.function_changed", "create or replace function worker.ring() returns trigger language plpgsql"
         " security definer set search_path = pg_catalog, pg_temp as $$ begin return null; end $$"),
    Case("schema.function_changed", "alter function worker.forget(text, interval, integer) security invoker",
         name="invoker"),
    Case("schema.function_changed",
         "alter function worker.claim(bigint, bigint, text[], integer, jsonb) reset lock_timeout", name="setting"),
    Case("schema.function_path", "alter function worker.retry(bigint, boolean) reset search_path"),
    Case("schema.function_foreign", ("create function worker.mine() returns integer language sql as 'select 1'",
         "revoke all on function worker.mine() from public; alter function worker.mine() owner to worker_owner")),
    Case("schema.owner", "alter function worker.retry(bigint, boolean) owner to postgres"),
    Case("schema.owner", "alter table worker.schedule owner to postgres", name="table"),
    Case("schema.relation_missing", "drop view worker.history"),
    Case("schema.index_missing", "drop index worker.job_queue_due"),
    Case("schema.index_missing", "drop index worker.job_queue_held", name="unique"),
    Case("schema.index_changed", ("drop index worker.job_queue_due",
         "create index job_queue_due on worker.job_queue (job_type, priority, id) where queued")),
    Case("schema.unlogged", "alter table worker.job_event set unlogged"),
    Case("schema.view", "alter view worker.jobs reset (security_invoker)"),
    Case("schema.options", "alter table worker.job_queue reset (fillfactor, autovacuum_vacuum_scale_factor)"),
    Case("schema.autovacuum", "alter table worker.job_queue set (autovacuum_enabled = false)"),
    Case("schema.trigger_missing", "drop trigger before_insert on worker.job_queue"),
    Case("schema.trigger_missing", "drop trigger ring on worker.job_queue", name="ring"),
    Case("schema.trigger_changed", ("drop trigger before_insert on worker.job_queue",
         "create trigger before_insert before insert on worker.job_queue for each row when (false)"
         " execute function worker.before_insert()")),
    Case("schema.trigger_off", "alter table worker.job_queue disable trigger before_cancel"),
    Case("schema.wake", "alter table worker.job_queue disable trigger ring"),
    Case("schema.trigger_foreign", ("create function spy() returns trigger language plpgsql as 'begin return new; end'",
         "create trigger spy before update on worker.job_queue for each row execute function spy()")),
    Case("schema.rule_foreign", "create rule lost as on insert to worker.job_event do instead nothing"),
    Case("schema.security", "alter table worker.job_queue no force row level security"),
    Case("schema.security", "alter table worker.job_step disable row level security", name="off"),
    Case("schema.policy_missing", "drop policy tenant_own on worker.job_queue"),
    Case("schema.policy_changed", "alter policy tenant_own on worker.job_queue using (true)"),
    Case("schema.policy_changed", "alter policy tenant_own on worker.job_queue to public", name="to_all"),
    Case("schema.policy_foreign", "create policy open on worker.job_queue for select to public using (true)"),
)  # fmt: skip

RIGHTS = (
    Case("rights.missing", "revoke execute on function worker.settle(bigint, worker.verdict[]) from worker_run"),
    Case("rights.missing", "revoke insert (payload) on worker.job_queue from worker_enqueue", name="column"),
    Case("rights.everybody", "grant execute on function worker.settle(bigint, worker.verdict[]) to public"),
    Case("rights.everybody", "grant usage on schema worker to anon; grant select on worker.job_queue to anon",
         name="anon"),
    Case("rights.everybody", "grant usage on type worker.type_name to public", name="type"),
    Case("rights.excess", "grant update on worker.job_type to worker_enqueue"),
    Case("rights.excess", "grant insert on worker.job_queue to worker_enqueue", name="beyond_columns"),
    Case("rights.excess", "grant create on schema worker to watchman", name="schema"),
    Case("rights.member_missing", "revoke worker_read from worker_operate",
         afterwards=("grant worker_read to worker_operate",)),
    Case("rights.member_excess", "grant worker_operate to worker_tenant",
         afterwards=("revoke worker_operate from worker_tenant",)),
    Case("rights.member_excess", "grant worker_enqueue to authenticated", name="authenticated",
         afterwards=("revoke worker_enqueue from authenticated",)),
    Case("rights.role", "alter role worker_run login", afterwards=("alter role worker_run nologin",)),
    Case("rights.login", "revoke worker_run from watchman", also=("schema.unseen",),
         afterwards=("grant worker_run to watchman",)),
    Case("rights.power", "grant worker_owner to watchman", afterwards=("revoke worker_owner from watchman",)),
    Case("rights.power", "alter role watchman bypassrls", name="bypassrls",
         afterwards=("alter role watchman nobypassrls",)),
    Case("rights.path_open", "grant create on schema public to public"),
)  # fmt: skip

SETTINGS = (
    Case("settings.commit", "alter database {database} set synchronous_commit = off"),
    Case("settings.counts", "alter database {database} set track_counts = off"),
    Case("settings.triggers", "alter role watchman set session_replication_role = replica",
         afterwards=("alter role watchman reset session_replication_role",)),
    Case("settings.security", "alter role watchman in database {database} set row_security = off",
         also=("types.unseen", "processes.unseen")),
    Case("settings.timeout", "alter role watchman set lock_timeout = '1s'",
         afterwards=("alter role watchman reset lock_timeout",)),
    Case("settings.timeout", "alter database {database} set idle_session_timeout = '1min'", name="idle_session"),
    Case("settings.timeout", "alter database {database} set idle_in_transaction_session_timeout = '2s'",
         name="idle_in_transaction"),
    Case("database.read_only", "alter database {database} set default_transaction_read_only = on"),
)  # fmt: skip

FUNCTIONS = (
    Case("functions.missing", "drop function double(integer)",
         "create function double(n integer) returns integer language sql as 'select 2 * n'"),
    Case("functions.arguments", ("drop function double(integer)",
         "create function double(other text) returns integer language sql as 'select 1'"),
         ("drop function double(text)",
         "create function double(n integer) returns text language sql as 'select null'")),
    Case("functions.ambiguous", "create function double(n text) returns integer language sql as 'select 1'",
         "drop function double(text)"),
    Case("functions.execute", "revoke execute on function double(integer) from public"),
    Case("functions.path", "alter function double(integer) security definer"),
    Case("functions.owner", "grant create on schema public to authenticated; alter function double(integer) owner to"
         " authenticated; revoke create on schema public from authenticated"),
    Case("producers.invoker", ("create table orders (id integer); grant insert on orders to authenticated",
         "create function on_order() returns trigger language plpgsql as"
         " $$ begin perform worker.enqueue('fine'); return new; end $$",
         "create trigger on_order after insert on orders for each row execute function on_order()")),
    Case("producers.path", ("create table orders (id integer)",
         "create function on_order() returns trigger language plpgsql security definer as"
         " $$ begin perform worker.enqueue('fine'); return new; end $$",
         "create trigger on_order after insert on orders for each row execute function on_order()")),
    Case("producers.owner", ("create table orders (id integer)",
         "create function on_order() returns trigger language plpgsql security definer set search_path = pg_catalog as"
         " $$ begin insert into worker.job_queue (job_type) values ('fine'); return new; end $$",
         "alter function on_order() owner to authenticator",
         "create trigger on_order after insert on orders for each row execute function on_order()"),
         afterwards=("revoke worker_enqueue from authenticator",)),
    Case("producers.exposed", "alter role authenticator set pgrst.db_schemas = 'public, worker'",
         afterwards=("alter role authenticator reset pgrst.db_schemas",)),
)  # fmt: skip

DECLARED = (
    Case("types.undeclared", "delete from worker.type_slot; delete from worker.job_type where name = 'fine'"),
    Case("types.changed", "update worker.job_type set digest = 'x' where name = 'graph'"),
    Case("types.unserved", "select worker.enqueue('finee')", name="undeclared"),
    Case("types.unserved", "insert into worker.job_type (name) values ('gone'); select worker.enqueue('gone')",
         name="of_nobody"),
    Case("types.paused", "select worker.pause('fine'), worker.enqueue('fine')"),
    Case("schedules.undeclared", "update worker.schedule set digest = 'x'"),
    Case("schedules.for_each", "drop function clubs()",
         "create function clubs() returns setof integer language sql as 'select 1'"),
    Case("schedules.failing", "update worker.schedule set error = 'E', failures = 1",
         "update worker.schedule set error = null, failures = 0"),
    Case("schedules.late", "update worker.schedule set next_at = now() - interval '1 hour'",
         "update worker.schedule set next_at = now() + interval '1 hour'"),
    Case("clock.moved", "select worker.set_clock(shift => '1 hour')"),
    Case("processes.none", "select worker.enqueue('fine', scheduled_at => now() - interval '1 hour')",
         "select worker.register('h', 1, '0', '{fine}', 1, '1 hour')"),
    Case("processes.silent", "select worker.register('h', 1, '0', '{fine}', 1, '-1 second')",
         "select worker.mark_dead(id, id) from worker.process; update worker.process set emptied_at = now()"),
    Case("processes.unrescued", "select worker.register('h', 1, '0', '{fine}', 1, '1 hour');"
         " update worker.process set dead_at = now()", "update worker.process set emptied_at = now()"),
)  # fmt: skip
