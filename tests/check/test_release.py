"""What is read from the text of sql/ is what a database has that was made with it."""

import asyncpg

from worker.check.release import release

INDEXES = """
    select i.relname from pg_index x join pg_class i on i.oid = x.indexrelid
    where i.relnamespace = 'worker'::regnamespace and not x.indisprimary
"""
RELATIONS = """
    select 'worker.' || c.relname, case c.relkind when 'r' then 'table' when 'v' then 'view' else 'sequence' end,
      array(select o from unnest(c.reloptions) o order by o), c.relpersistence = 'u'
    from pg_class c
    where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'v', 'S')
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i' and c.relkind = 'S')
"""
FUNCTIONS = """
    select p.oid::regprocedure::text, case when p.prosqlbody is null then md5(p.prosrc) end, p.prosecdef,
      array(select s from unnest(p.proconfig) s order by s)
    from pg_proc p where p.pronamespace = 'worker'::regnamespace
"""
NAMES = "select to_regprocedure(s)::text from unnest($1::text[]) with ordinality as n (s, place) order by place"


async def test_every_index_is_read(connection: asyncpg.Connection) -> None:
    assert {each["name"] for each in release()["indexes"]} == {name for (name,) in await connection.fetch(INDEXES)}


async def test_every_relation_is_read_with_its_options(connection: asyncpg.Connection) -> None:
    read = {(each["name"], each["kind"], each["unlogged"], *sorted(each["options"])) for each in release()["relations"]}
    rows = await connection.fetch(RELATIONS)
    assert read == {(name, kind, unlogged, *options) for name, kind, options, unlogged in rows}


async def test_every_function_is_read_with_its_text_and_settings(connection: asyncpg.Connection) -> None:
    names = await connection.fetch(NAMES, [each["signature"] for each in release()["functions"]])
    read = {
        (name, each["body"], each["definer"], *each["settings"])
        for (name,), each in zip(names, release()["functions"], strict=True)
    }
    assert read == {(*row[:3], *row[3]) for row in map(tuple, await connection.fetch(FUNCTIONS))}


def test_what_else_is_read_is_there_at_all() -> None:
    """Whether it is all that there is, the healthy installation tells: what was not read would be foreign to it."""
    read = release()
    assert {kind: bool(each) for kind, each in read.items()} == dict.fromkeys(read, True)
