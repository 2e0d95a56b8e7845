"""The ground that attacks are tried on: who there is, whose rows there are, and what must be as it was afterwards."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import asyncpg

NOTHING = "nothing"  # it may be said, but shows no row and changes nothing
EMPTY = "empty"  # it may even write, and is undone; what its last statement looks for is not there

STATES = ("pending", "running", "completed", "skipped", "failed", "cancelled")
MEMBERS = {
    "tenant": "worker_tenant",
    "claimless": "worker_tenant",
    "app": "worker_enqueue",
    "other_app": "worker_enqueue",
    "reader": "worker_read",
    "operator": "worker_operate",
    "runner": "worker_run",
    "nobody": None,
}
T1 = json.dumps({"role": "authenticated", "tenant_id": "t1"})
TYPES = [
    {"name": "mail", "producers": ["app", "tenant"], "digest": "1"},
    {"name": "report", "producers": ["app", "tenant"], "unique_key": "one", "on_conflict": "replace", "digest": "2"},
    {"name": "bounded", "producers": ["app", "tenant"], "digest": "3",
     "backlog": {"max": 50, "per_tenant": 3, "then": "refuse"}},
    {"name": "internal", "audit": True, "digest": "4"},
]  # fmt: skip
# One row in each state for t1 (101 …), t2 (201 …), nobody (301 …), the application (401 …) and another one (501 …).
ROWS = """
insert into worker.job_queue (id, job_type, payload, status, queued, trouble, priority, scheduled_at, max_attempts,
  unique_while, tenant_id, enqueued_by, correlation_id, claim, started_at, finished_at, created_at, errors)
overriding system value
select whose.first + state.n, 'mail', jsonb_build_object('secret', concat('of ', whose.who)), state.name,
  state.name = 'pending', state.name in ('failed', 'cancelled'), 100, '2026-01-01', 5, 'waiting', whose.tenant,
  whose.who, 'c',
  case when state.name <> 'pending' then 900 + whose.first + state.n end,
  case when state.name <> 'pending' then timestamptz '2026-01-01' end,
  case when state.name not in ('pending', 'running') then timestamptz '2026-01-01' end, '2026-01-01',
  jsonb_build_array(jsonb_build_object('message', concat('of ', whose.who)))
from unnest($1::text[]) with ordinality as state (name, n),
  (values (100, 't1', 'somebody'), (200, 't2', 'somebody'), (300, null, 'somebody'), (400, null, $2), (500, null, $3))
    as whose (first, tenant, who);
"""
REST = """
create schema evil;
insert into worker.job_step (job_id, name, status, claim, error)
select id, 'a', 'completed', 1, 'of ' || enqueued_by from worker.job_queue;
insert into worker.job_event (job_id, event) select id, 'seen' from worker.job_queue;
insert into worker.process (host, pid, version, lease, started_at, beat_at, lease_until)
values ('h', 1, '0', '30s', now(), now(), now());
insert into worker.backend (process_id, pid, backend_start, duty) values (1, 1, now(), 'beat');
select nextval('worker.claim_seq'), setval('worker.bell', 5);
analyze worker.job_queue, worker.job_step;
"""
# All that an attack could change: rows, the numbers that are given out, and every object with its owner and rights.
WORLD = """
select md5(string_agg(part, ' ' order by part)) from (
  select '' as part
  union all select c::text from pg_class c
    where c.relnamespace = 'worker'::regnamespace and c.relkind not in ('r', 'i')
  union all select concat(c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.relhastriggers)
    from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'i')
  union all select concat(a.attrelid, a.attname, a.attacl, a.atttypid, a.atthasdef) from pg_attribute a
    join pg_class c on c.oid = a.attrelid where c.relnamespace = 'worker'::regnamespace
  union all select p::text from pg_proc p where p.pronamespace = 'worker'::regnamespace
  union all select t::text from pg_trigger t
    join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'worker'::regnamespace
  union all select concat(y.typname, y.typacl, y.typowner) from pg_type y where y.typnamespace = 'worker'::regnamespace
  union all select p::text from pg_policy p
  union all select r.rulename from pg_rewrite r
    join pg_class c on c.oid = r.ev_class where c.relnamespace = 'worker'::regnamespace
  union all select n::text from pg_namespace n where n.nspname not like 'pg\\_%'
  union all select concat(r.rolname, r.rolsuper, r.rolcanlogin, r.rolbypassrls, r.rolconfig) from pg_roles r
  union all select m::text from pg_auth_members m
  union all select s::text from pg_db_role_setting s union all select d::text from pg_default_acl d
  union all select format('%s %s', q.sequencename, q.last_value) from pg_sequences q
    where q.schemaname = 'worker' and q.sequencename in ('claim_seq', 'bell')) world
"""
TABLES = """
select format('select concat_ws('' '', %s)', string_agg(format(
  '(select md5(string_agg(t::text, '' '' order by t::text)) from worker.%I t)', c.relname), ', ' order by c.relname))
from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relkind = 'r'
"""


@dataclass(frozen=True)
class Attack:
    """One thing to try.

    Attributes:
        what: said in a few words.
        who: the names of those who try it.
        statements: of one transaction, in order; what the last one answers is looked at.
        must: the SQLSTATE that it is refused with (several, with spaces, where releases differ), NOTHING, or EMPTY.
    """

    what: str
    who: tuple[str, ...]
    statements: tuple[str, ...]
    must: str


class Ground:
    """A database with rows of everybody, and a session of each attacker, who logs in as nothing but what it is."""

    def __init__(
        self, owner: asyncpg.Connection, sessions: dict[str, asyncpg.Connection], roles: dict[str, str]
    ) -> None:
        self._owner = owner
        self._sessions = sessions
        self.roles = roles
        self._tables = ""

    async def tried(self, attacks: Iterable[Attack]) -> list[str]:
        """Try them all; answers with a line for each that did not come to what it must."""
        passed = []
        before = await self.world()
        for attack in attacks:
            for who in attack.who:
                came = await self._came(who, attack)
                if came == NOTHING and await self.world() != before:
                    came = "the world changed"
                if came not in attack.must.split():
                    passed.append(
                        f"{who}: {attack.what}: must be {attack.must}, came to {came}: {attack.statements[-1]}"
                    )
        if await self.world() != before:
            passed.append("the world changed by one of those that were refused")
        return passed

    def session(self, who: str) -> asyncpg.Connection:
        """The connection of one of them."""
        return self._sessions[who]

    async def world(self) -> str:
        """A digest of all that is there."""
        if not self._tables:
            self._tables = await self._owner.fetchval(TABLES)
        return str(await self._owner.fetchval(WORLD)) + str(await self._owner.fetchval(self._tables))

    async def _came(self, who: str, attack: Attack) -> str:
        session = self._sessions[who]
        try:
            await session.execute("begin")
            await self._become(who, session)
            for statement in attack.statements[:-1]:
                await session.execute(self._named(statement))
            said = await session.execute(self._named(attack.statements[-1]))
            if (rows := said.rpartition(" ")[2]).isdigit() and int(rows) > 0:
                return f"{rows} rows"
            if attack.must == EMPTY:
                return EMPTY
            await session.execute("commit")
            return NOTHING
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
        finally:
            await session.execute("rollback")
            await session.execute("discard all")

    async def _become(self, who: str, session: asyncpg.Connection) -> None:
        if who == "postgrest":  # as PostgREST does it for each request
            await session.execute(f"set local role {self.roles['authenticated']}")
        if who in ("tenant", "postgrest"):
            await session.execute("select set_config('request.jwt.claims', $1, true)", T1)

    def _named(self, statement: str) -> str:
        for name, role in self.roles.items():
            statement = statement.replace(f"<{name}>", role)
        return statement


@contextlib.asynccontextmanager
async def ground(dsn: str, owner: asyncpg.Connection) -> AsyncIterator[Ground]:
    """Roles with a login of their own, so that `reset role` and its like lead nowhere but to themselves."""
    roles = {name: f"{name}_{uuid.uuid4().hex[:8]}" for name in (*MEMBERS, "postgrest", "authenticated")}
    for name, group in MEMBERS.items():
        await owner.execute(f"create role {roles[name]} login {f'in role {group}' if group else ''}")
    await owner.execute(f"create role {roles['authenticated']} in role worker_tenant")
    await owner.execute(f"create role {roles['postgrest']} login noinherit in role {roles['authenticated']}")
    await owner.fetch("select worker.declare($1::jsonb)", json.dumps(TYPES))
    await owner.execute(
        ROWS.replace("$1", "array" + str(list(STATES)))
        .replace("$2", f"'{roles['app']}'")
        .replace("$3", f"'{roles['other_app']}'")
    )
    await owner.execute(REST)
    for role in roles.values():  # some may make objects of their own, to plant what others run into
        await owner.execute(f"grant usage, create on schema evil to {role}")
    sessions: dict[str, asyncpg.Connection] = {}
    try:
        for name in (*MEMBERS, "postgrest"):
            where = dsn.replace("postgres@", f"{roles[name]}@", 1)
            sessions[name] = await asyncpg.connect(where, statement_cache_size=0)
        yield Ground(owner, sessions, roles)
    finally:
        for session in sessions.values():
            await session.close(timeout=10)
        await _drop(owner, roles.values())


async def _drop(owner: asyncpg.Connection, roles: Iterable[str]) -> None:
    for role in roles:
        await owner.execute(f"drop owned by {role} cascade")
    for role in roles:
        await owner.execute(f"drop role {role}")
