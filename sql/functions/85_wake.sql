-- Sleeping: polling is the guarantee, the bell a hint (docs/decisions/0004).

create or replace function worker.sleep(me bigint, due double precision, poll double precision) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  insert into worker.asleep as a (process_id, since, due, until)
  values (me, clock_timestamp(), worker.now() + make_interval(secs => least(coalesce($2, $3), $3)),
          clock_timestamp() + make_interval(secs => 3 * $3))
  on conflict (process_id) do update set due = excluded.due, until = excluded.until
$$;
comment on function worker.sleep(bigint, double precision, double precision) is
  'Turns the bell of a process on, or renews it: ring for rows due within the given seconds. Its own transaction, committed before the next look';

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
