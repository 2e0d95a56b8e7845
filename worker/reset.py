"""What a stranger's function may leave on a connection: named, and undone after every use."""

from typing import Any

import asyncpg

RESET_SECONDS = 30.0

# Prepared once on each connection, so that looking costs no planning. A null says that nothing was left. Of settings
# only search_path is looked at: asking for all of them costs more than a step. Locks are looked for apart, because
# asking for them holds up the lock table of the whole server.
PREPARE = """
do $$
begin
  execute pg_catalog.format($text$
    prepare worker_left as select nullif(pg_catalog.concat_ws(' ',
      case when pg_catalog.current_setting('role') <> %L or session_user <> %L then 'role' end,
      case when pg_catalog.current_setting('search_path') <> %L then 'search_path' end,
      case when exists (select from pg_catalog.pg_depend d where d.refobjid = pg_catalog.pg_my_temp_schema()
        and d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass) then 'temporary' end,
      case when exists (select from pg_catalog.pg_listening_channels()) then 'listen' end,
      case when exists (select from pg_catalog.pg_cursors c where c.is_holdable) then 'cursor' end,
      case when exists (select from pg_catalog.pg_prepared_statements p
        where p.from_sql and p.name not in ('worker_left', 'worker_locks')) then 'prepared' end), '')
    $text$, pg_catalog.current_setting('role'), session_user, pg_catalog.current_setting('search_path'));
end $$;
prepare worker_locks as select case when exists (select from pg_catalog.pg_locks l
  where l.locktype = 'advisory' and l.pid = pg_catalog.pg_backend_pid()) then 'advisory_lock' end
"""

# INFO is sent whatever client_min_messages says by now, and is not in the server's log. When somebody's DEALLOCATE ALL
# dropped ours, those of the driver's cache are gone as well, and the reset that fails ends the connection.
_LOOK = """
do $$
declare
  kinds text;
begin
  execute 'execute {}' into kinds;
  if kinds is not null then
    raise info using message = kinds;
  end if;
end $$;
"""

# DISCARD ALL would drop the prepared statements that asyncpg caches; its own reset leaves role and temporary tables.
_UNDO = """
reset session authorization; reset all; discard temp; select pg_advisory_unlock_all(); unlisten *; close all
"""
# What the next use most likely wants again is set in the same message.
_LIMIT = "; select pg_catalog.set_config('statement_timeout', '{:d}', false)"
_DEALLOCATE = """
do $$
declare
  s text;
begin
  for s in select p.name from pg_catalog.pg_prepared_statements p
    where p.from_sql and p.name not in ('worker_left', 'worker_locks') loop
    execute pg_catalog.format('deallocate %I', s);
  end loop;
end $$
"""
QUICK_RESET = _LOOK.format("worker_left") + _UNDO
FULL_RESET = _LOOK.format("worker_left") + _LOOK.format("worker_locks") + _UNDO


async def prepare(connection: asyncpg.Connection) -> None:
    """Make a new connection ready to be reset."""
    await connection.execute(PREPARE, timeout=RESET_SECONDS)


async def undo(connection: asyncpg.Connection, locks: bool = True, limit: int | None = None) -> list[str]:
    """Undo what was left behind, in one message where that was nothing; answers with its kinds.

    Args:
        limit: milliseconds that the statement timeout is set to for the next use; None for the session's own.
        locks: whether to look for advisory locks; they are released in any case.
    """
    left: list[str] = []

    def hear(_: Any, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "INFO":
            left.extend(str(message.message).split())

    connection.add_log_listener(hear)
    try:
        text = FULL_RESET if locks else QUICK_RESET
        await connection.execute(text if limit is None else text + _LIMIT.format(limit), timeout=RESET_SECONDS)
    finally:
        connection.remove_log_listener(hear)
    if "prepared" in left:
        await connection.execute(_DEALLOCATE, timeout=RESET_SECONDS)
    return left
