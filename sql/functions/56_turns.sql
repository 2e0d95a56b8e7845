-- Fair share: the tenants of a type take turns. Inside one priority the claim hops over the tenants with due rows, from a
-- cursor on, and takes as many of each; no window over the backlog, nothing written at enqueue.

create or replace function worker.tenants_in_turn(type text, rank smallint, since text, most integer, instant timestamptz) returns text[]
language sql stable
begin atomic
  -- Read lazily: as many hops as tenants are wanted, and those passed over have nothing that is due.
  select coalesce(array_agg(due.tenant), '{}') from (
    select line.tenant from (
      (with recursive hop (tenant) as (
         (select coalesce(q.tenant_id::text, '') from worker.job_queue q
          where q.queued and q.fair and q.job_type = type and q.priority = rank and coalesce(q.tenant_id::text, '') > since
          order by coalesce(q.tenant_id::text, '') limit 1)
         union all
         select (select coalesce(q.tenant_id::text, '') from worker.job_queue q
                 where q.queued and q.fair and q.job_type = type and q.priority = rank
                   and coalesce(q.tenant_id::text, '') > h.tenant
                 order by coalesce(q.tenant_id::text, '') limit 1)
         from hop h where h.tenant is not null
       )
       select h.tenant from hop h where h.tenant is not null)
      union all
      (with recursive hop (tenant) as (
         (select coalesce(q.tenant_id::text, '') from worker.job_queue q
          where q.queued and q.fair and q.job_type = type and q.priority = rank
          order by coalesce(q.tenant_id::text, '') limit 1)
         union all
         select (select coalesce(q.tenant_id::text, '') from worker.job_queue q
                 where q.queued and q.fair and q.job_type = type and q.priority = rank
                   and coalesce(q.tenant_id::text, '') > h.tenant
                 order by coalesce(q.tenant_id::text, '') limit 1)
         from hop h where h.tenant < since
       )
       select h.tenant from hop h where h.tenant <= since)
    ) line
    where exists (
      select from worker.job_queue q
      where q.queued and q.fair and q.job_type = type and q.priority = rank
        and coalesce(q.tenant_id::text, '') = line.tenant and q.scheduled_at <= instant)
    limit most) due;
end;
comment on function worker.tenants_in_turn(text, smallint, text, integer, timestamptz) is
  'Up to `most` tenants with due rows of a type at a priority, in order from the one after `since`, and round again';

create or replace function worker.take_turns(type text, rank smallint, room integer, instant timestamptz,
  out rows tid[], out more boolean)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  tenants text[];
  quota integer;
  served text;
begin
  tenants := worker.tenants_in_turn(type, rank, coalesce((select t.tenant from worker.turn t where t.job_type = type), ''),
    least(room, 500), instant);
  quota := ceil(room::numeric / greatest(cardinality(tenants), 1));
  select coalesce(array_agg(hit.row_id), '{}'), coalesce(bool_or(hit.all_of_it), false), tenants[max(hit.place)]
  into rows, more, served
  from (
    select one.row_id, line.place, count(*) over (partition by line.place) >= quota as all_of_it
    from unnest(tenants) with ordinality as line (tenant, place)
    cross join lateral (
      select q.ctid as row_id from worker.job_queue q
      where q.queued and q.fair and q.job_type = type and q.priority = rank
        and coalesce(q.tenant_id::text, '') = line.tenant and q.scheduled_at <= instant
        and (q.expires_at is null or q.expires_at > instant)
      order by q.scheduled_at, q.id limit quota for no key update skip locked) one
    limit room) hit;
  more := more and cardinality(rows) < room;
  if served is not null then
    perform worker.served(type, served);
  end if;
  if cardinality(rows) < room and not more then
    -- Rows that were written while the type was not fair yet. Few others are due now: these we have, or another claim.
    rows := rows || array(
      select q.ctid from worker.job_queue q
      where q.queued and q.job_type = type and q.priority = rank and q.scheduled_at <= instant and not q.fair
        and (q.expires_at is null or q.expires_at > instant)
      order by q.scheduled_at, q.id limit room - cardinality(rows) for no key update skip locked);
  end if;
end
$$;
comment on function worker.take_turns(text, smallint, integer, timestamptz) is
  'Locks up to so many due rows of a fair type at a priority, as many of each tenant; more: a tenant has others, for which there was no turn in this batch';

create or replace function worker.served(type text, tenant text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  -- A hint, so nobody waits for it: who comes second leaves it to the first.
  update worker.turn t set tenant = served.tenant
  where t.ctid = (select o.ctid from worker.turn o where o.job_type = served.type for update skip locked);
  if not found and not exists (select from worker.turn o where o.job_type = served.type) then
    insert into worker.turn (job_type, tenant) values (served.type, served.tenant) on conflict do nothing;
  end if;
end
$$;
comment on function worker.served(text, text) is 'Notes which tenant of a fair type was served last';

create or replace function worker.in_turn(jobs worker.claimed[]) returns worker.claimed[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  -- The places of fair jobs go to them in turns; the others stay where they are. Moved as numbers: jobs are wide.
  with listed as (
    select u.ordinality as at, u.priority, coalesce(t.fair, false) as fair, u.job_type, coalesce(u.tenant_id, '') as tenant
    from unnest(jobs) with ordinality u left join worker.job_type t on t.name = u.job_type
  ), turn as (
    select l.at, l.priority, l.fair, row_number() over (partition by l.priority, l.fair order by l.at) as place,
      case when l.fair then row_number() over (partition by l.priority, l.job_type, l.tenant order by l.at) end as round
    from listed l
  ), moved as (
    select t.at, t.priority, t.fair, row_number() over (partition by t.priority, t.fair order by t.round, t.at) as place from turn t
  ), placed as (
    select m.at as was, t.at from turn t
    join moved m on m.priority = t.priority and m.fair = t.fair and m.place = t.place
  )
  select array_agg(o.job order by p.at)
  from (select c as job, row_number() over () as at from unnest(jobs) c) o join placed p on p.was = o.at
$$;
comment on function worker.in_turn(worker.claimed[]) is 'Claimed jobs in the order in which they are to begin, the tenants of fair types in turns';

create or replace function worker.turn_rows(types text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  -- Those that are locked just now keep their place until they are claimed: worker.take_turns finds them all the same.
  update worker.job_queue j set fair = t.fair
  from worker.job_type t
  where t.name = j.job_type and j.ctid = any (array(
    select q.ctid from worker.job_queue q join worker.job_type d on d.name = q.job_type
    where q.job_type = any (types) and (q.queued or q.parked) and q.fair <> d.fair
    for no key update of q skip locked))
$$;
comment on function worker.turn_rows(text[]) is 'Tells the waiting rows of types that they are fair now, or no longer';

-- Rights.
revoke all on function worker.tenants_in_turn(text, smallint, text, integer, timestamptz),
  worker.take_turns(text, smallint, integer, timestamptz), worker.served(text, text), worker.in_turn(worker.claimed[]),
  worker.turn_rows(text[]) from public;
grant select on worker.turn to worker_read;
