-- Processes: each has a lease, beaten from a connection of its own; the others judge it by what they see.

create or replace function worker.timeline() returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end;
exception when others then
  return null;  -- a service that shows nothing of its log
end
$$;
comment on function worker.timeline() is 'Another one after each promotion of a standby; null where it cannot be told';

create or replace function worker.void(me bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  verdicts worker.verdict[];
begin
  perform from worker.process p where p.id = me and p.dead_at is null and p.timeline <> worker.timeline() for update;
  if not found then
    return;
  end if;
  -- Numbers that the old server gave out last may be unknown here: none of them may be given out again. Of jobs it is the
  -- receivers of their calls who remember them.
  perform setval('worker.claim_seq', nextval('worker.claim_seq') + 1000000);
  perform setval('worker.job_queue_id_seq', nextval('worker.job_queue_id_seq') + 1000000);
  update worker.process p set dead_at = worker.now(), dead_by = me, emptied_at = worker.now() where p.id = me;
  select array_agg((j.id, j.claim, 'pending', null, 0, null, false, false, true, null, null, null, null)::worker.verdict) into verdicts
  from worker.process p join worker.job_queue j on j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
  where p.id = me;
  perform worker.settle(me, coalesce(verdicts, '{}'));
end
$$;
comment on function worker.void(bigint) is
  'Ends a process that finds itself on a promoted standby, before it writes anything there: what it was answered last may be lost. Its jobs go back uncounted, and it comes back under a new id';

create or replace function worker.register(host text, pid integer, version text, types text[], slots integer, lease interval,
  pooled boolean default false) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  insert into worker.process (host, pid, version, types, slots, lease, pooled, timeline, started_at, beat_at, lease_until)
  values ($1, $2, $3, $4, $5, $6, $7, worker.timeline(), worker.now(), worker.now(), worker.now() + $6)
  returning id
$$;
comment on function worker.register(text, integer, text, text[], integer, interval, boolean) is 'A new process; answers with its id, which is never used again';

create or replace function worker.register_backend(me bigint, duty text, out pid integer, out backend_start timestamptz)
language plpgsql
as $$
begin
  -- With the caller's own rights: others see no backend_start.
  select a.pid, a.backend_start into pid, backend_start
  from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid();
  perform worker.note_backend(me, pid, backend_start, duty);
end
$$;
comment on function worker.register_backend(bigint, text) is 'Registers the calling connection under its process, by (pid, backend_start)';

create or replace function worker.note_backend(me bigint, pid integer, backend_start timestamptz, duty text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform worker.void(me);
  if note_backend.duty = 'beat' then
    delete from worker.backend b where b.process_id = me and b.duty = 'beat';
  end if;
  insert into worker.backend (process_id, pid, backend_start, duty)
  values (me, note_backend.pid, note_backend.backend_start, note_backend.duty)
  on conflict on constraint backend_pkey do update set duty = excluded.duty;
end
$$;
comment on function worker.note_backend(bigint, integer, timestamptz, text) is 'Writes what worker.register_backend found; one beat connection a process';

create or replace function worker.beat(me bigint, open_batch bigint, out alive boolean, out stops bigint[])
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
begin
  perform worker.void(me);  -- here too, for behind a pooler no session is registered
  update worker.process p set beat_at = worker.now(), lease_until = worker.now() + p.lease,
    open_batch = greatest(p.open_batch, beat.open_batch)
  where p.id = me and p.dead_at is null;
  alive := found;
  begin
    -- A migration that holds the whole table must not cost the lease, or all that runs would be ended for it.
    perform set_config('lock_timeout', '100ms', true);
    select coalesce(array_agg(j.claim), '{}') into stops from worker.job_queue j
    where j.claimed_by = me and j.cancel_requested_at is not null and j.status = 'running';
  exception when lock_not_available then
    stops := '{}';  -- asked for again at the next beat
  end;
end
$$;
comment on function worker.beat(bigint, bigint) is
  'Renews the process lease and says the lowest claim call still held; answers whether the process still lives, and the claims of its jobs that were asked to stop';

create or replace function worker.chores(types text[], out strays boolean, out orphans boolean, out due double precision)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off set lock_timeout = '100ms'
as $$
begin
  strays := exists (select from worker.kept);  -- of the locked table nothing is known, of this one it is
  strays := strays or exists (select from worker.job_queue q where q.parked)
    or exists (select from worker.job_queue q where (q.queued or q.parked) and q.expires_at <= worker.now())
    or exists (select from worker.type_slot s where s.job_id is not null
      and (select j.status from worker.job_queue j where j.id = s.job_id) is distinct from 'running');
  orphans := exists (select from worker.process p where p.dead_at is not null and p.emptied_at is null);
  select date_part('epoch', min(first.scheduled_at) - worker.now()) into due
  from worker.lines(worker.open_types(types)) l
  cross join lateral (
    select q.scheduled_at from worker.job_queue q
    where q.queued and q.job_type = l.job_type and q.priority = l.priority
    order by q.scheduled_at limit 1) first;
exception when lock_not_available then
  null;  -- a migration holds a table: asked again at the next beat, which it must not cost
end
$$;
comment on function worker.chores(text[]) is
  'What there is to do for whoever looks: strays for worker.sweep, orphans for worker.rescue, and in how many seconds the first pending row of these types is due (below zero: it is overdue), but for types whose limit is reached. Reads an index entry each';

create or replace function worker.leave(me bigint) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
  -- Whoever leaves with a row still running has not stopped in good order: the others must find it missing.
  update worker.process p set stopped_at = worker.now()
  where p.id = me and not exists (
    select from worker.job_queue j where j.claimed_by = me and j.batch >= p.open_batch and j.status = 'running');
  delete from worker.asleep where process_id = me;
  delete from worker.backend where process_id = me;
$$;
comment on function worker.leave(bigint) is 'A process stops in good order, if it holds nothing any more; else the others will find it missing and rescue its rows';

create or replace function worker.suspects(me bigint) returns table (id bigint, missing boolean, lapsed boolean)
language sql stable
begin atomic
  -- A backend_start that we may not see (null) counts as alive. Behind a pooler only the lease speaks.
  select p.id,
    not p.pooled and not exists (
      select from worker.backend b join pg_stat_activity a on a.pid = b.pid
      where b.process_id = p.id and b.duty = 'beat' and (a.backend_start = b.backend_start or a.backend_start is null)),
    p.lease_until < worker.now()
  from worker.process p
  where p.id <> me and p.dead_at is null and p.stopped_at is null;
end;
comment on function worker.suspects(bigint) is
  'The other processes, whether the session of their beat is missing, and whether their lease has lapsed';

create or replace function worker.beat_and_look(me bigint, open_batch bigint, types text[])
returns table (alive boolean, stops bigint[], strays boolean, orphans boolean, due double precision, missing bigint[], lapsed bigint[])
language sql volatile
begin atomic
  -- One round trip: on a slow way a second one could cost the lease. With the caller's rights, for worker.suspects.
  select b.alive, b.stops, c.strays, c.orphans, c.due, s.missing, s.lapsed
  from worker.beat(me, open_batch) b cross join worker.chores(types) c cross join (
    select array_agg(other.id) filter (where other.missing) as missing,
           array_agg(other.id) filter (where other.lapsed) as lapsed
    from worker.suspects(me) other) s;
end;
comment on function worker.beat_and_look(bigint, bigint, text[]) is
  'A beat, and what a beat looks around for: chores, and processes whose session is missing or whose lease has lapsed';

create or replace function worker.declare_dead(me bigint, suspect bigint) returns boolean
language plpgsql
as $$
begin
  -- Looked at again here: the suspect may have come back since it was last seen missing.
  if not exists (select from worker.suspects(me) s where s.id = suspect and (s.missing or s.lapsed)) then
    return false;
  end if;
  begin
    if not worker.mark_dead(me, suspect) then
      return false;
    end if;
  exception when lock_not_available then
    -- A claim whose frozen client does not read its answer holds the row, and would for ever: end it, judge again.
    perform worker.end_backends(suspect);
    return false;
  end;
  perform worker.end_backends(suspect);
  return true;
end
$$;
comment on function worker.declare_dead(bigint, bigint) is
  'Declares a process dead, for ever, and ends its connections; false when it came back or another was faster';

create or replace function worker.mark_dead(me bigint, suspect bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
begin
  perform from worker.process p where p.id = me and p.dead_at is null for key share;
  if not found then
    return false;
  end if;
  -- For update, against the key share of claim: no claim of the suspect is in flight after this, none comes later.
  perform from worker.process p where p.id = suspect and p.dead_at is null for update;
  if not found then
    return false;
  end if;
  update worker.process p set dead_at = worker.now(), dead_by = me where p.id = suspect;
  delete from worker.asleep a where a.process_id = suspect;
  return true;
end
$$;
comment on function worker.mark_dead(bigint, bigint) is 'Writes that a process is dead, unless the judge is';

create or replace function worker.end_backends(process bigint) returns integer
language sql volatile
begin atomic
  select count(pg_terminate_backend(a.pid))::integer
  from worker.backend b join pg_stat_activity a on a.pid = b.pid and a.backend_start = b.backend_start
  where b.process_id = process;
end;
comment on function worker.end_backends(bigint) is 'Ends the registered connections of a process; a reused pid has another start and is left alone';

create or replace function worker.stop_backend(pid integer, backend_start timestamptz, hard boolean) returns boolean
language sql volatile
begin atomic
  select bool_or(case when hard then pg_terminate_backend(a.pid) else pg_cancel_backend(a.pid) end)
  from pg_stat_activity a
  where a.pid = stop_backend.pid and a.backend_start = stop_backend.backend_start and (hard or a.state = 'active');
end;
comment on function worker.stop_backend(integer, timestamptz, boolean) is
  'Cancels the running statement of one connection, or (hard) ends the connection; null when it is gone or idle';

create or replace function worker.rescue(me bigint, batch bigint, n integer) returns setof worker.claimed
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  rows tid[];
  dead bigint[] := array(select p.id from worker.process p where p.dead_at is not null and p.emptied_at is null order by p.id);
begin
  if cardinality(dead) = 0 then
    return;
  end if;
  perform worker.enter(me, rescue.batch);
  rows := array(
    select held.ctid from worker.process p
    cross join lateral (
      select j.ctid, j.id from worker.job_queue j
      where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
      order by j.batch, j.id limit n for no key update skip locked) held
    where p.id = any (dead)
    limit n);
  insert into worker.job_event (job_id, event, detail)
  select j.id, 'rescue', jsonb_build_object('process', j.claimed_by, 'claim', j.claim, 'by', me)
  from worker.job_queue j where j.ctid = any (rows);
  return query
  with stranded as (
    -- Not counted: a rescue after which the last rescuer never settled, a process that got a step done, and who waited
    -- while another ran alone.
    select j.id, j.ctid as row_id, j.phase is distinct from 'rescued'
      and (j.phase is not distinct from 'alone' or not exists (
        select from worker.process p join worker.job_queue other on other.claimed_by = p.id and other.batch >= p.open_batch
        where p.id = j.claimed_by and other.status = 'running' and other.phase = 'alone'))
      and not exists (select from worker.job_step s where s.job_id = j.id and s.claim = j.claim and s.status = 'completed') as counted
    from worker.job_queue j where j.ctid = any (rows)
  )
  update worker.job_queue j set claim = nextval('worker.claim_seq'), claimed_by = me, batch = rescue.batch, phase = 'rescued',
    rescues = j.rescues + s.counted::integer
  from stranded s
  where j.ctid = any (rows) and j.id = s.id
  returning j.id, j.job_type::text, j.payload::text, j.priority::smallint, j.attempt, j.max_attempts::smallint, j.claim,
    j.tenant_id::text, j.correlation_id::text, j.traceparent::text, j.source::text, j.parent_id, j.concurrency_key::text,
    j.rescues, j.snoozes,
    extract(epoch from worker.now() - j.scheduled_at)::double precision,
    extract(epoch from j.deadline_at - worker.now())::double precision, s.counted;
  if cardinality(rows) < n then
    update worker.process p set emptied_at = worker.now()
    where p.id = any (dead) and not exists (
      select from worker.job_queue j where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running');
  end if;
end
$$;
comment on function worker.rescue(bigint, bigint, integer) is
  'Claims, for process me under its call number batch, up to n running rows of processes declared dead; me judges and settles them like any other attempt. Also says whether the rescue counts';
