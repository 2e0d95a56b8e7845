-- Running limits: a type with `limit` has as many rows in worker.type_slot, and each of its running jobs stands in one.
--
-- Free slots are locked by the claim with skip locked, and written only for the rows that start: nothing can leak that a
-- rollback would not give back. Limits of one process alone are Python's (docs/decisions/0020).

create or replace function worker.open_types(types text[]) returns text[]
language sql stable
begin atomic
  select coalesce(array_agg(t.name), '{}') from worker.job_type t
  where t.name = any (types) and (not coalesce(t.limits, '{}') ? 'running'
    or exists (select from worker.type_slot s where s.job_type = t.name and s.job_id is null));
end;
comment on function worker.open_types(text[]) is 'The given types without those whose running limit is reached';

create or replace function worker.take_slots(type text, wanted integer, taken tid[]) returns tid[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  -- Our own locks are not skipped, so what another line of the type has taken is named.
  return array(
    select s.ctid from worker.type_slot s
    where s.job_type = take_slots.type and s.job_id is null and not s.ctid = any (taken)
    limit wanted for update skip locked);
end
$$;
comment on function worker.take_slots(text, integer, tid[]) is
  'Locks up to so many free slots of a type, beside those taken already; nobody waits for anybody';

create or replace function worker.stand_in(slots tid[], rows tid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  place record;
begin
  -- One by one, by their places: joined, all slots were read for each of them.
  for place in
    select free.row_id, job.id
    from (
      select s.ctid as row_id, s.job_type, row_number() over (partition by s.job_type) as at
      from worker.type_slot s where s.ctid = any (slots)) free
    join (
      select j.id, j.job_type, row_number() over (partition by j.job_type) as at
      from worker.job_queue j join worker.job_type t on t.name = j.job_type and t.limits ? 'running'
      where j.ctid = any (rows)) job on job.job_type = free.job_type and job.at = free.at
  loop
    update worker.type_slot s set job_id = place.id where s.ctid = place.row_id;
  end loop;
end
$$;
comment on function worker.stand_in(tid[], tid[]) is 'Writes who starts into the slots that the claim has locked';

create or replace function worker.free_slots(ids bigint[], types text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform from worker.type_slot s where s.job_id = any (ids) order by s.job_type, s.slot for update;
  delete from worker.type_slot s where s.job_id = any (ids) and s.slot < 0;
  update worker.type_slot s set job_id = null where s.job_id = any (ids);
  if exists (select from worker.type_slot s where s.slot < 0 and s.job_type = any (types)) then
    perform worker.move_up(types);
  end if;
end
$$;
comment on function worker.free_slots(bigint[], text[]) is 'Frees the slots of jobs that do not run any more; the types are those of the jobs';

create or replace function worker.move_up(types text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  surplus worker.type_slot;
  freed integer;
begin
  -- A job beyond a lowered limit takes the first free slot, so that nobody starts before enough have ended.
  for surplus in
    select s.* from worker.type_slot s where s.slot < 0 and s.job_type = any (types)
    order by s.job_type, s.slot for update skip locked
  loop
    delete from worker.type_slot f where f.ctid = (
      select s.ctid from worker.type_slot s where s.job_type = surplus.job_type and s.job_id is null limit 1 for update skip locked)
    returning f.slot into freed;
    continue when freed is null;
    update worker.type_slot s set slot = freed where s.job_type = surplus.job_type and s.slot = surplus.slot;
  end loop;
end
$$;
comment on function worker.move_up(text[]) is 'Puts jobs that run beyond a lowered limit into slots that came free';

create or replace function worker.fit_slots(type text, bound integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  lowest integer;
begin
  if bound is null then
    delete from worker.type_slot s where s.job_type = fit_slots.type;
    return;
  elsif bound = (select count(*) filter (where s.slot between 1 and bound) + 1000000 * count(*) filter (where s.slot > bound)
                 from worker.type_slot s where s.job_type = fit_slots.type) then
    return;
  end if;
  perform from worker.type_slot s where s.job_type = fit_slots.type order by s.slot for update;
  delete from worker.type_slot s where s.job_type = fit_slots.type and s.slot > bound and s.job_id is null;
  lowest := least(0, (select min(s.slot) from worker.type_slot s where s.job_type = fit_slots.type));
  update worker.type_slot s set slot = lowest - s.slot where s.job_type = fit_slots.type and s.slot > bound;
  lowest := least(0, (select min(s.slot) from worker.type_slot s where s.job_type = fit_slots.type));
  -- Those that began when there was no limit count as well.
  insert into worker.type_slot (job_type, slot, job_id)
  select fit_slots.type, lowest - row_number() over (), r.id
  from worker.process p
  cross join lateral (
    select j.id from worker.job_queue j
    where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running' and j.job_type = fit_slots.type
    order by j.batch limit 20000) r
  where p.stopped_at is null and p.emptied_at is null
    and not exists (select from worker.type_slot s where s.job_id = r.id);
  insert into worker.type_slot (job_type, slot)
  select fit_slots.type, n from generate_series(1, bound) n on conflict do nothing;
  perform worker.move_up(array[fit_slots.type]);
end
$$;
comment on function worker.fit_slots(text, integer) is
  'Makes the slots of a type as many as its limit (null: none). Beyond a lowered limit running jobs go on, and none starts until enough of them have ended';

create or replace function worker.sweep_slots() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
-- Job by job, never the table beside the slots.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  stray worker.type_slot;
  freed integer := 0;
begin
  -- Locked first and looked at again: in the snapshot of one statement a slot could be free and another job's by now.
  for stray in
    select s.* from worker.type_slot s
    where s.job_id is not null
      and (select j.status from worker.job_queue j where j.id = s.job_id) is distinct from 'running'
    order by s.job_type, s.slot limit 1000 for update skip locked
  loop
    continue when exists (select from worker.job_queue j where j.id = stray.job_id and j.status = 'running');
    perform worker.free_slots(array[stray.job_id], array[stray.job_type]);
    perform worker.ring_for(stray.job_type);
    freed := freed + 1;
  end loop;
  return freed;
end
$$;
comment on function worker.sweep_slots() is 'Frees slots whose job does not run: it was deleted, or changed by hand';

-- Rights.
revoke all on function worker.open_types(text[]), worker.take_slots(text, integer, tid[]), worker.stand_in(tid[], tid[]),
  worker.free_slots(bigint[], text[]), worker.move_up(text[]), worker.fit_slots(text, integer), worker.sweep_slots() from public;
grant select on worker.type_slot to worker_read;
grant execute on function worker.open_types(text[]) to worker_read;
