-- Claim: due rows become running, in one batch, each under a claim number of its own.
--
-- Rules that keep it right (each was measured, docs/decisions/0002): several statements, each with its own snapshot,
-- never one chain of CTEs; rows are locked inside the LATERAL, so exactly as many are locked as are claimed; what is
-- claimed comes of one round, because key order holds within a round only. A round from places that comes to too little,
-- or to keys, counts for nothing and is made again from the beginning.

create or replace function worker.lines(types text[]) returns table (job_type text, priority smallint)
language sql stable
begin atomic
  -- Hops over the due index from (type, priority) to (type, priority); rows in between are never read.
  with recursive line (job_type, priority) as (
    select t.name, (select q.priority from worker.job_queue q where q.queued and q.job_type = t.name
                    order by q.priority limit 1)
    from worker.job_type t
    where t.name = any (types) and not t.paused and (t.enabled or t.fallback)
    union all
    select l.job_type, (select q.priority from worker.job_queue q where q.queued and q.job_type = l.job_type
                        and q.priority > l.priority order by q.priority limit 1)
    from line l
    where l.priority is not null
  )
  select l.job_type, l.priority from line l where l.priority is not null;
end;
comment on function worker.lines(text[]) is 'The (type, priority) lines that have queued rows, of the given types that are neither paused nor disabled';

create or replace function worker.lines(types text[], after jsonb)
returns table (job_type text, priority smallint, scheduled_at timestamptz, id bigint)
language sql stable
begin atomic
  -- The line of a place is not hopped to: whether it has rows the look itself will tell, and the hop would read all that
  -- is dead in front of them. Not for all who ask for lines: it takes half as long again.
  with recursive place (job_type, priority, scheduled_at, id) as materialized (
    select split_part(p.key, ' ', 1), split_part(p.key, ' ', 2)::integer, (p.value ->> 0)::timestamptz, (p.value ->> 1)::bigint
    from jsonb_each(after) p
  ), line (job_type, priority) as (
    select t.name, -32769  -- before all
    from worker.job_type t
    where t.name = any (types) and not t.paused and (t.enabled or t.fallback)
    union all
    select l.job_type, coalesce((select q.priority from worker.job_queue q where q.queued and q.job_type = l.job_type
                                 and q.priority > l.priority and q.priority < coalesce(known.priority, 32768)
                                 order by q.priority limit 1), known.priority)
    from line l
    cross join lateral (select min(p.priority) as priority from place p
                        where p.job_type = l.job_type and p.priority > l.priority) known
    where l.priority is not null
  )
  select l.job_type, l.priority::smallint, coalesce(p.scheduled_at, '-infinity'), coalesce(p.id, 0)
  from line l left join place p on p.job_type = l.job_type and p.priority = l.priority
  where l.priority between -32768 and 32767;
end;
comment on function worker.lines(text[], jsonb) is
  'The lines as worker.lines tells them without places, those of places among them, and after which row of each to look';

create or replace function worker.place(after jsonb, last tid) returns jsonb
language sql stable
begin atomic
  select coalesce(after, '{}') || jsonb_build_object(q.job_type || ' ' || q.priority, jsonb_build_array(q.scheduled_at, q.id))
  from worker.job_queue q where q.ctid = last;
end;
comment on function worker.place(jsonb, tid) is
  'Places by line, that of the given row added: {"TYPE PRIORITY": [scheduled_at, id]}; worker.claim looks after them';

create or replace function worker.next_due(types text[]) returns double precision
language sql stable set enable_sort = off set jit = off
begin atomic
  -- Future rows only: an overdue row that cannot be claimed must not make the sleep zero.
  select extract(epoch from min(d.scheduled_at) - worker.now())::double precision
  from worker.lines(types) l
  cross join lateral (
    select q.scheduled_at from worker.job_queue q
    where q.queued and q.job_type = l.job_type and q.priority = l.priority and q.scheduled_at > worker.now()
    order by q.scheduled_at limit 1) d;
end;
comment on function worker.next_due(text[]) is 'Seconds until the next future row of the given types is due, or null';

create or replace function worker.start(rows tid[], me bigint, batch bigint, instant timestamptz, timed boolean)
returns worker.claimed[]
language sql volatile
begin atomic
  with started as (
    update worker.job_queue j set
      status = 'running', queued = false, parked = false, claimed_by = me, batch = start.batch, claim = nextval('worker.claim_seq'),
      attempt = least(j.attempt + 1, 1000000), phase = null, finish_reason = null,
      started_at = coalesce(j.started_at, instant),
      deadline_at = case when timed and j.deadline_at is null
                         then instant + (select t.deadline from worker.job_type t where t.name = j.job_type) else j.deadline_at end,
      held_key = case when j.unique_while = 'active' then j.held_key end
    where j.ctid = any (rows)
    -- What is sorted by comes first: behind values of any length a sort looks for it anew at each comparison.
    returning j.priority, j.scheduled_at, j.id, j.job_type, j.payload, j.attempt, j.max_attempts, j.claim, j.tenant_id,
      j.correlation_id, j.traceparent, j.source, j.parent_id, j.concurrency_key, j.rescues, j.snoozes, j.deadline_at
  )
  -- Made into composites after they are sorted: a sort would take them apart again for each comparison.
  select array_agg((s.id, s.job_type, s.payload::text, s.priority, s.attempt, s.max_attempts, s.claim, s.tenant_id,
    s.correlation_id, s.traceparent, s.source, s.parent_id, s.concurrency_key, s.rescues, s.snoozes,
    date_part('epoch', instant - s.scheduled_at), date_part('epoch', s.deadline_at - instant), true)::worker.claimed)
  from (select * from started order by priority, scheduled_at, id) s;
end;
comment on function worker.start(tid[], bigint, bigint, timestamptz, boolean) is
  'Turns locked pending rows into running ones, in the order in which they are to begin; the last statement of a claim. timed: some type has a deadline';

-- For the claims of edition 1 that are under way while this is put in its place: they end with what they began with.
create or replace function worker.start(rows tid[], me bigint, batch bigint, instant timestamptz) returns worker.claimed[]
language sql volatile
begin atomic
  select worker.start(rows, me, batch, instant, true);
end;
comment on function worker.start(tid[], bigint, bigint, timestamptz) is 'As with timed; called by claims of edition 1';

create or replace function worker.take_keys(rows tid[]) returns tid[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  won bigint[];
  taken tid[];
begin
  -- "do update … where false" locks the slots that others hold, which "do nothing" would not: their settle waits for
  -- our commit and so cannot look for parked rows before ours are visible.
  with best as (
    select distinct on (j.concurrency_key) j.concurrency_key, j.id from worker.job_queue j
    where j.ctid = any (rows) and j.concurrency_key is not null
    order by j.concurrency_key, j.priority, j.scheduled_at, j.id
  ), slot as (
    insert into worker.key_slot as s (key, job_id) select b.concurrency_key, b.id from best b order by b.concurrency_key
    on conflict (key) do update set job_id = s.job_id where false
    returning s.job_id
  )
  select coalesce(array_agg(slot.job_id), '{}') into won from slot;

  with blocked as (
    update worker.job_queue j set queued = false, parked = true
    where j.ctid = any (rows) and j.concurrency_key is not null and not j.id = any (won)
  )
  select coalesce(array_agg(j.ctid), '{}') into taken from worker.job_queue j
  where j.ctid = any (rows) and (j.concurrency_key is null or j.id = any (won));
  return taken;
end
$$;
comment on function worker.take_keys(tid[]) is
  'Takes the free concurrency keys of locked rows, parks the rows that stay behind; answers with the rows to start';

create or replace function worker.join_calls(taken tid[]) returns tid[]
language sql volatile
begin atomic
  -- For each coalesced row that got its key: the others of that key, parked or in backoff too, up to 500 in one call.
  select taken || coalesce(array_agg(joined.ctid), '{}') from (
    select other.ctid from worker.job_queue lead
    cross join lateral (
      select q.ctid from worker.job_queue q
      where q.coalesced and (q.queued or q.parked) and q.concurrency_key = lead.concurrency_key and q.id <> lead.id
        and (q.scheduled_at <= worker.now() or q.started_at is not null)
        and (q.expires_at is null or q.expires_at > worker.now())
      order by q.id limit 499 for no key update skip locked) other
    where lead.ctid = any (taken) and lead.coalesced) joined;
end;
comment on function worker.join_calls(tid[]) is 'The rows to start, with those that go along in a coalesced call';

create or replace function worker.go_along(rows tid[], instant timestamptz) returns tid[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  waiting tid[];
begin
  -- The oldest open row of a key was in its last call. When that call failed it says when the next one is due: whoever
  -- comes meanwhile goes along with it, or a stream of newcomers would use up the attempts of all who wait.
  with behind as (
    select j.ctid as row_id, oldest.scheduled_at
    from worker.job_queue j
    cross join lateral (
      select q.phase, q.scheduled_at from worker.job_queue q
      where q.coalesced and (q.queued or q.parked) and q.concurrency_key = j.concurrency_key
      order by q.id limit 1) oldest
    where j.ctid = any (rows) and j.coalesced and j.phase is distinct from 'backoff'
      and oldest.phase = 'backoff' and oldest.scheduled_at > instant
  ), moved as (
    update worker.job_queue j set scheduled_at = behind.scheduled_at, phase = 'backoff'
    from behind where j.ctid = behind.row_id
  )
  select coalesce(array_agg(b.row_id), '{}') into waiting from behind b;
  return array(select r from unnest(rows) r where not r = any (waiting));
end
$$;
comment on function worker.go_along(tid[], timestamptz) is
  'Puts off coalesced rows whose key''s last call failed until that call is made again; answers with the other rows';

drop function if exists worker.enter(bigint, bigint);  -- of releases that always wrote
create or replace function worker.enter(me bigint, batch bigint, taking boolean default true) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  p worker.process;
begin
  -- A key share lock passes by the beat, but not by declare_dead and unclaim: what they find is the whole of it. It is
  -- a write, so a look that takes nothing does without.
  if taking then
    select * into p from worker.process where id = me for key share;
  else
    select * into p from worker.process where id = me;
  end if;
  if p.id is null or p.dead_at is not null then
    raise exception 'process % was declared dead', me using errcode = 'WK006';
  end if;
  if batch = any (p.closed) then
    raise exception 'claim call % of process % was closed', batch, me using errcode = 'WK007';
  end if;
end
$$;
comment on function worker.enter(bigint, bigint, boolean) is 'Refuses a claim of a process declared dead (WK006) or under a closed number (WK007)';

create or replace function worker.claim(me bigint, batch bigint, types text[], n integer, after jsonb,
  out jobs worker.claimed[], out parked integer, out xmin bigint, out xmax bigint, out next_due double precision,
  out places jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off set lock_timeout = '250ms'
-- Statistics of another day make the index of a type's jobs look cheaper than that of due ones, if their order came free.
set enable_sort = off
as $$
declare
  instant timestamptz := worker.now();  -- once: it is not inlined, and would be called several times for each row
  found_rows tid[];
  keyed boolean;
  audited boolean;
  gated boolean;
  timed boolean;
  rated boolean := false;
  fair boolean := false;
  again boolean := false;
  soon boolean := false;
  passed tid[] := '{}';
  slots tid[];
  mine tid[];
begin
  loop
    with kinds as materialized (
      select bool_or(t.audit) as audited, coalesce(bool_or(t.fair or t.limits <> '{}'), false) as gated
      from worker.job_type t where t.name = any (types)
    )
    select coalesce(array_agg(picked.ctid), '{}'), coalesce(bool_or(picked.keyed), false),
           (select k.audited from kinds k), (select k.gated from kinds k),
           exists (select from worker.job_type t where t.deadline is not null),
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    into found_rows, keyed, audited, gated, timed, claim.xmin, claim.xmax
    from (
      select hit.ctid, hit.keyed
      from (
        select l.job_type, l.priority, l.scheduled_at, l.id from worker.lines(types, after) l
        where not (select k.gated from kinds k)
        order by l.priority, random()) line
      cross join lateral (
        select q.ctid, q.concurrency_key is not null as keyed from worker.job_queue q
        where q.queued and q.job_type = line.job_type and q.priority = line.priority and q.scheduled_at <= instant
          and (q.scheduled_at, q.id) > (line.scheduled_at, line.id) and (q.expires_at is null or q.expires_at > instant)
        order by q.scheduled_at, q.id
        limit n for no key update skip locked) hit
      limit n) picked;
    exit when after is null or gated or (cardinality(found_rows) = n and not keyed);
    -- Rows may be left before the places; and of a key the oldest goes first, which may just have got free.
    after := null;
    passed := found_rows;
  end loop;
  if not passed <@ found_rows then
    perform worker.ring_others(me, types);  -- who looked meanwhile passed over what is locked here and not taken
  end if;
  if cardinality(found_rows) = n and n > 0 and not keyed and not gated then
    places := worker.place(after, found_rows[n]);
  end if;

  if gated then
    select p.rows, p.slots, p.rated, p.fair, p.again, p.soon into found_rows, slots, rated, fair, again, soon
    from worker.pick(types, n, instant) p;
    keyed := exists (select from worker.job_queue j where j.ctid = any (found_rows) and j.concurrency_key is not null);
  end if;
  perform worker.enter(me, batch, cardinality(found_rows) > 0);
  mine := case when keyed then worker.take_keys(worker.go_along(found_rows, instant)) else found_rows end;
  if rated then
    mine := worker.ration(mine, n);
  end if;
  if cardinality(slots) > 0 then
    perform worker.stand_in(slots, mine);
  end if;
  parked := cardinality(found_rows) - cardinality(mine) + again::integer;
  if keyed then
    mine := worker.join_calls(mine);
  end if;
  if cardinality(mine) > 0 then
    jobs := worker.start(mine, me, batch, instant, timed);
    if fair then jobs := worker.in_turn(jobs); end if;
    if audited then perform worker.note_claims(me, jobs); end if;
  end if;
  if cardinality(mine) > 0 and exists (select from worker.kept) then
    delete from worker.kept k where k.id = any (array(
      select o.id from worker.kept o where o.job_id = any (array(select j.id from unnest(jobs) j)) for update skip locked));
  end if;
  jobs := coalesce(jobs, '{}');
  if cardinality(found_rows) < n then
    next_due := worker.next_due(types);
    if soon then
      next_due := least(coalesce(next_due, 0.02), 0.02);
    end if;
  end if;
end
$$;
comment on function worker.claim(bigint, bigint, text[], integer, jsonb) is
  'Claims up to n due rows of the given types for process me under its call number batch. Also answers how many rows were parked or put off (look again at once), the snapshot''s xmin and xmax, and, when the batch is short, seconds until the next row is due. places: where a full batch of rows without keys ended; given back as after, the next look begins there and does not read again what is dead before it. Rows that come in before a place are found once the batch is short or after is null, which is to be so once a second';

-- For releases that know no places.
create or replace function worker.claim(me bigint, batch bigint, types text[], n integer,
  out jobs worker.claimed[], out parked integer, out xmin bigint, out xmax bigint, out next_due double precision)
language sql volatile
begin atomic
  select c.jobs, c.parked, c.xmin, c.xmax, c.next_due from worker.claim(me, batch, types, n, null) c;
end;
comment on function worker.claim(bigint, bigint, text[], integer) is 'As with after, from the beginning of each line';

create or replace function worker.unclaim(me bigint, batch bigint) returns integer
language plpgsql security definer
-- Brief, because the beat waits for the row of its process that is locked here.
set search_path = pg_catalog, pg_temp set lock_timeout = '250ms'
as $$
declare
  verdicts worker.verdict[];
begin
  -- Closing the number first, under the lock that claim shares, makes a claim that comes later a refused one.
  update worker.process p set closed = (p.closed || unclaim.batch)[greatest(cardinality(p.closed) - 98, 1):]
  where p.id = (select q.id from worker.process q where q.id = me for update);
  select array_agg((j.id, j.claim, 'pending', null, 0, null, false, false, true, null, null, null, null)::worker.verdict) into verdicts
  from worker.job_queue j
  where j.status = 'running' and j.claimed_by = me and j.batch = unclaim.batch;
  return (select count(*) from worker.settle(me, coalesce(verdicts, '{}')));
end
$$;
comment on function worker.unclaim(bigint, bigint) is
  'Gives back what a claim call took whose answer never arrived, and closes its number; the attempts are not counted';
