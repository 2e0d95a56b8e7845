"""docs/sql-reference.md, made from the catalogue of a migrated database."""

import json
import re
from collections.abc import Iterator, Sequence

import asyncpg

_INTRODUCTION = """\
# Every function and view

Made from the catalogue of a migrated database, so that it says what `\\df+ worker.*` says; a test keeps this page and
the catalogue alike. [The SQL interface](sql.md) explains what belongs together, the errors, and the roles. What nobody
but the owner may call, and what is only a part of another function, is not public and not listed.
"""
# Of whom each section tells: whoever else may call is named at the function.
_SECTIONS = (
    ("worker_enqueue", "For those who produce"),
    ("worker_operate", "For operators"),
    ("worker_read", "For readers"),
    ("worker_run", "For the daemon"),
    ("public", "For everybody"),
)
_GRANTED = """
    coalesce((select jsonb_agg(distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
              from aclexplode({acl}) a where a.privilege_type = '{right}' and a.grantee <> {owner}), '[]')
"""
_FUNCTIONS = f"""
    select p.proname as name, pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
      obj_description(p.oid, 'pg_proc') as comment,
      {_GRANTED.format(acl="p.proacl", right="EXECUTE", owner="p.proowner")} as roles
    from pg_proc p where p.pronamespace = 'worker'::regnamespace order by p.proname, 2
"""
_RELATIONS = f"""
    select c.relname as name, obj_description(c.oid, 'pg_class') as comment,
      {_GRANTED.format(acl="c.relacl", right="SELECT", owner="c.relowner")} as roles,
      (select string_agg(format('`%s` %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
       from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'v') order by c.relname
"""


async def reference(connection: asyncpg.Connection) -> str:
    """The whole page."""
    functions = [row for row in await connection.fetch(_FUNCTIONS) if not _is_part(row["comment"])]
    relations = await connection.fetch(_RELATIONS)
    return "\n".join([_INTRODUCTION, *_calls(functions), *_views(relations)])


def _is_part(comment: str) -> bool:
    return "part of worker." in comment.lower() or "half of worker." in comment


def _calls(functions: Sequence[asyncpg.Record]) -> Iterator[str]:
    for role, title in _SECTIONS:
        yield f"## {title}\n"
        for row in functions:
            roles = json.loads(row["roles"])
            if roles and next(each for each, _ in _SECTIONS if each in (*roles, "public")) == role:
                others = sorted(set(roles) - {role})
                yield f"- **`worker.{_signature(row)}`**{_also(others)}<br>\n  {row['comment']}."
        yield ""


def _signature(row: asyncpg.Record) -> str:
    arguments = re.sub(r"(DEFAULT (?:NULL|true|false|\d+|'[^']*'))::[a-z ]+(?:\[\])?", r"\1", row["arguments"])
    result = "" if row["result"] == "record" else f" → {row['result']}"
    return _short(f"{row['name']}({arguments}){result}")


def _short(text: str) -> str:
    return text.replace("timestamp with time zone", "timestamptz").replace("DEFAULT", "default").replace("OUT ", "out ")


def _views(relations: Sequence[asyncpg.Record]) -> Iterator[str]:
    yield "## Tables and views to read\n"
    for row in relations:
        if roles := json.loads(row["roles"]):
            who = "`, `".join(sorted(roles))
            yield f"- **`worker.{row['name']}`** (`{who}`)<br>\n  {row['comment']}.<br>\n  {_short(row['columns'])}"
    yield ""


def _also(roles: Sequence[str]) -> str:
    return f" (also `{'`, `'.join(roles)}`)" if roles else ""
