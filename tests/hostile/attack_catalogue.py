"""The attacks that follow from the catalogue, so that a new function, table or column is attacked without a word."""

import asyncpg

from tests.hostile.attack import Attack

DENIED = "42501"
WHAT_VIEWS_SAY = f"{DENIED} 55000 0A000"  # or that it cannot be written to
# What each may call; whatever else there is must be refused. Those of the daemon, operators and readers are granted.
PRODUCE = {"enqueue", "enqueue_many", "unique_key_of", "list_jobs", "now", "tenant_of", "current_tenant"}
MAY_CALL = {"tenant": PRODUCE, "postgrest": PRODUCE, "claimless": PRODUCE, "app": PRODUCE | {"cancel"}, "nobody": set()}
MAY_READ = {"job_queue", "job_step", "job_type", "jobs", "job_stats", "clock", "bell"}
MAY_SET = {
    "job_type", "payload", "scheduled_at", "priority", "unique_key", "on_conflict", "concurrency_key", "tenant_id",
    "max_attempts", "expires_at", "correlation_id", "traceparent", "source",
}  # fmt: skip
MAY_UPDATE = {"cancel_requested_at", "cancel_reason"}
PRODUCERS = ("tenant", "postgrest", "claimless", "app")
ALL = (*PRODUCERS, "reader", "operator", "runner")
ONLY_THE_OWNERS = {
    "set_clock",
    "claim_job",
    "meet",
    "holder",
    "start",
    "take_keys",
    "free_keys",
    "unpark",
    "void",
    "alone",
}
LOCKS = (
    "row share",
    "row exclusive",
    "share update exclusive",
    "share",
    "share row exclusive",
    "exclusive",
    "access exclusive",
)

FUNCTIONS = """
select p.proname as name, p.oid::regprocedure::text as told,
  p.prorettype in ('trigger'::regtype, 'event_trigger'::regtype) as fires,
  format('select worker.%I(%s)', p.proname, (select string_agg('null::' || format_type(t, null), ', ' order by n)
    from unnest(p.proargtypes) with ordinality a (t, n))) as call
from pg_proc p where p.pronamespace = 'worker'::regnamespace order by told
"""
RELATIONS = """
select c.relname as name, c.relkind::text as kind, (select a.attname from pg_attribute a
  where a.attrelid = c.oid and a.attnum > 0 and a.attname <> 'id' and not a.attisdropped
  order by a.attnum limit 1) as first
from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'v', 'm', 'S', 'f', 'p')
order by c.relname
"""
COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attidentity <> '' as given from pg_attribute a
where a.attrelid = 'worker.job_queue'::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""


async def calls(db: asyncpg.Connection) -> list[Attack]:
    """Every function, by everybody who must not."""
    found = await db.fetch(FUNCTIONS)
    attacks = [
        Attack(f"calls {each['told']}", (who,), (each["call"],), DENIED)
        for each in found
        for who, may in MAY_CALL.items()
        if each["name"] not in may and not each["fires"]
    ]
    others = [each for each in found if each["name"] in ONLY_THE_OWNERS]
    return attacks + [
        Attack(f"calls {each['told']}", ("reader", "operator", "runner"), (each["call"],), DENIED) for each in others
    ]


async def columns(db: asyncpg.Connection) -> list[Attack]:
    """Every column of the queue: written at insert, and changed afterwards."""
    attacks = []
    for each in await db.fetch(COLUMNS):
        name, value = each["name"], f"null::{each['type']}"
        over = " overriding system value" if each["given"] else ""
        if name not in MAY_SET:
            for job_type in ("mail", "internal"):
                insert = f"insert into worker.job_queue (job_type, {name}){over} values ('{job_type}', {value})"
                attacks.append(Attack(f"inserts {name} of {job_type}", ALL, (insert,), DENIED))
            forged = f"insert into worker.bulk (job_type, payloads, {name}) values ('mail', '{{}}', {value})"
            attacks.append(Attack(f"inserts {name} by the bulk", PRODUCERS, (forged,), "42703"))
        update = f"update worker.job_queue set {name} = {'default' if each['given'] else value}"
        merge = (
            "insert into worker.job_queue (job_type) values ('mail')"
            f" on conflict (id) do update set {name} = excluded.{name}"
        )
        who = tuple(each for each in ALL if each not in ("app", "operator")) if name in MAY_UPDATE else ALL
        attacks += [
            Attack(f"updates {name}", who, (update,), DENIED),
            Attack(f"upserts {name}", who, (merge,), f"{DENIED} 428C9"),
        ]
    # The bulk has its own column of who inserted.
    forged = "insert into worker.bulk (job_type, payloads, enqueued_by) values ('mail', '{}', 'worker_owner')"
    return [
        *(each for each in attacks if "inserts enqueued_by by the bulk" not in each.what),
        Attack("says who it is by the bulk", PRODUCERS, (forged,), DENIED),
        Attack(
            "says what was added", PRODUCERS, ("insert into worker.bulk (job_type, added) values ('mail', 1)",), DENIED
        ),
    ]


async def relations(db: asyncpg.Connection) -> list[Attack]:
    """Every table, view and sequence: deleted from, truncated, locked in every mode, read by whoever must not."""
    attacks = []
    for each in await db.fetch(RELATIONS):
        name, kind = each["name"], each["kind"]
        if name not in MAY_READ and (name, kind) != ("bulk", "v"):
            attacks.append(Attack(f"reads {name}", PRODUCERS, (f"select * from worker.{name}",), DENIED))
        if kind != "S":
            delete, change = f"delete from worker.{name}", f"update worker.{name} set {each['first']} = null"
            must = DENIED if kind == "r" else WHAT_VIEWS_SAY
            attacks.append(Attack(f"deletes from {name}", ALL, (delete,), must))
            attacks.append(Attack(f"updates {name}", ALL, (change,), must))
            attacks += [
                Attack(f"locks {name}", ALL, (f"lock table worker.{name} in {mode} mode",), DENIED) for mode in LOCKS
            ]
        if kind == "r":
            attacks.append(Attack(f"truncates {name}", ALL, (f"truncate worker.{name}",), DENIED))
    return attacks
