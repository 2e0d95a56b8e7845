-- Which edition of sql/ this is, and whom it still serves: docs/decisions/0024-editions.md, docs/upgrade.md.
--
-- The first number grows by one with each release that changes anything in migrations/ or functions/. The second is the
-- oldest edition whose daemons, command line and producers work on this schema; who is older refuses to start.

create or replace function worker.edition(out edition integer, out serves integer)
language sql immutable parallel safe
as $$ select 2, 1 $$;
comment on function worker.edition() is
  'The edition of this schema, and the oldest one whose daemons work on it; a release from before that one refuses to start (exit code 3)';
grant execute on function worker.edition() to worker_run, worker_read;
