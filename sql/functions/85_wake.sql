-- Sleeping: polling is the guarantee, the bell a hint (docs/decisions/0004).

create or replace function worker.sleep(me bigint, poll double precision) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
begin
  -- One sleeper at a time, so that the gate never goes back behind somebody's mark; those who insert pass.
  lock table worker.asleep in share row exclusive mode;
  insert into worker.asleep as a (process_id, since, due, until)
  values (me, clock_timestamp(), worker.now() + make_interval(secs => 6 * poll), clock_timestamp() + make_interval(secs => 6 * poll))
  on conflict (process_id) do update set due = excluded.due, until = excluded.until;
  perform setval('worker.bell', greatest(pg_sequence_last_value('worker.bell'),
    (select ceil(extract(epoch from max(a.until)))::bigint from worker.asleep a)));
end
$$;
comment on function worker.sleep(bigint, double precision) is
  'Turns the bell of a process on, or renews it, for six polls: it must outlast the longest wait that begins before the next renewal. Its own transaction, committed before the next look';

create or replace function worker.wake(me bigint) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  delete from worker.asleep where process_id = me
$$;
comment on function worker.wake(bigint) is 'Turns the bell of a process off: it is busy and looks by itself';

create or replace function worker.test_ring(nonce text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select pg_notify('worker', 'test ' || nonce)
$$;
comment on function worker.test_ring(text) is 'Rings for a listener''s self-test, from another connection than its own';

create or replace function worker.rings() returns boolean
language sql stable
begin atomic
  select t.tgenabled <> 'D' from pg_trigger t where t.tgrelid = 'worker.job_queue'::regclass and t.tgname = 'ring';
end;
comment on function worker.rings() is 'Whether inserts ring: the setting worker.wake, as the database has it';

create or replace function worker.set_ring(rings boolean) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
begin
  if rings = worker.rings() then
    return false;
  end if;
  if rings then
    alter table worker.job_queue enable trigger ring;
  else
    alter table worker.job_queue disable trigger ring;
  end if;
  return true;
end
$$;
comment on function worker.set_ring(boolean) is
  'Turns the ring of inserts on or off for all (worker.wake), for databases whose users PREPARE TRANSACTION or load in bulk; true = changed. The owner''s';
