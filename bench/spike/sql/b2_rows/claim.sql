-- claim: lock the best due rows of the types that may run, take their keys, start them.
create type worker.claimed as (
    id bigint, claim bigint, job_type text, payload text, attempt integer, max_attempts integer, rescues integer,
    snoozes integer, priority smallint, scheduled_at timestamptz, started_at timestamptz, deadline_at timestamptz,
    tenant_id text, concurrency_key text, correlation_id text, traceparent text, source text, parent_id bigint
);

create function worker.claim(
    me bigint, batch_number bigint, types text[], n integer
) returns setof worker.claimed language plpgsql as $$
declare
    at     timestamptz := statement_timestamp();
    rows   tid[];
    keyed  boolean;
    won    bigint[];
    horizon bigint;
    frontier bigint;
    parked integer;
begin
    -- Whoever declares this process dead or closes a batch locks the row FOR UPDATE: then nothing is in flight.
    perform from worker.process p
      where p.id = me and p.dead_at is null and p.closed_batch < batch_number
        for key share;
    if not found then
        raise exception 'process % is dead or batch % is closed', me, batch_number using errcode = 'WK002';
    end if;

    -- One hop per (type, priority); rows are locked only as the outer limit pulls them.
    with recursive line(job_type, priority) as (
        select t.name, (select q.priority from worker.job_queue q
                         where q.queued and q.job_type = t.name
                         order by q.priority limit 1)
          from worker.job_type t
         where t.name = any(types) and t.enabled and not t.paused
        union all
        select l.job_type, (select q.priority from worker.job_queue q
                             where q.queued and q.job_type = l.job_type and q.priority > l.priority
                             order by q.priority limit 1)
          from line l
         where l.priority is not null
    )
    select array_agg(due.ctid), bool_or(due.concurrency_key is not null),
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
      into rows, keyed, horizon, frontier
      from (select picked.*
              from (select * from line where line.priority is not null order by line.priority, random()) l
             cross join lateral (
                   select q.ctid, q.concurrency_key
                     from worker.job_queue q
                    where q.queued and q.job_type = l.job_type and q.priority = l.priority
                      and q.scheduled_at <= at and (q.expires_at is null or q.expires_at > at)
                    order by q.scheduled_at, q.id
                    limit n
                      for no key update skip locked) picked
             limit n) due;

    parked := 0;
    if keyed then
        -- DO UPDATE … WHERE false locks the slots that others hold: their settle waits until our parked rows are visible.
        with best as (
            select distinct on (q.concurrency_key) q.concurrency_key, q.id
              from worker.job_queue q
             where q.ctid = any(rows) and q.concurrency_key is not null
             order by q.concurrency_key, q.priority, q.scheduled_at, q.id
        ), slot as (
            insert into worker.key_slot as s (key, job_id)
            select b.concurrency_key, b.id from best b order by b.concurrency_key
            on conflict (key) do update set job_id = s.job_id where false
            returning s.job_id
        )
        select coalesce(array_agg(slot.job_id), '{}') into won from slot;

        update worker.job_queue q
           set queued = false, parked = true
         where q.ctid = any(rows) and q.concurrency_key is not null and q.id <> all(won);
        get diagnostics parked = row_count;
    end if;

    -- A parked row has a new version, so its old ctid finds nothing here.
    return query
        update worker.job_queue q
           set status = 'running', queued = false, attempt = q.attempt + 1,
               claim = nextval('worker.claim_number'), claimed_by = me, batch = batch_number,
               started_at = coalesce(q.started_at, at),
               deadline_at = coalesce(q.deadline_at, at + (select t.deadline from worker.job_type t where t.name = q.job_type)),
               held_key = case when q.unique_while = 'active' then q.held_key end
         where q.ctid = any(rows)
        returning q.id, q.claim, q.job_type::text, q.payload::text, q.attempt, q.max_attempts::integer, q.rescues, q.snoozes,
                  q.priority::smallint, q.scheduled_at::timestamptz, q.started_at, q.deadline_at, q.tenant_id::text, q.concurrency_key::text,
                  q.correlation_id::text, q.traceparent::text, q.source::text, q.parent_id;
end $$;

create function worker.next_due(types text[], at timestamptz) returns timestamptz language sql stable as $$
    with recursive line(job_type, priority) as (
        select t.name, (select q.priority from worker.job_queue q
                         where q.queued and q.job_type = t.name
                         order by q.priority limit 1)
          from worker.job_type t
         where t.name = any(types) and t.enabled and not t.paused
        union all
        select l.job_type, (select q.priority from worker.job_queue q
                             where q.queued and q.job_type = l.job_type and q.priority > l.priority
                             order by q.priority limit 1)
          from line l
         where l.priority is not null
    )
    select min((select q.scheduled_at from worker.job_queue q
                 where q.queued and q.job_type = l.job_type and q.priority = l.priority and q.scheduled_at > at
                 order by q.scheduled_at limit 1))
      from line l
     where l.priority is not null
$$;
