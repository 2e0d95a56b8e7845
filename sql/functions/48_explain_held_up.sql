-- What holds up a job that is due: its type, the daemons, a limit, a key, or those before it; parts of worker.explain_job.

create or replace function worker.explain_type(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  declared worker.job_type;
  alive text[];
  able bigint;
begin
  select * into declared from worker.job_type t where t.name = job.job_type;
  select array_agg(worker.explain_process(p.id) order by p.id), count(*) filter (where job.job_type = any (p.types)) into alive, able
  from worker.process p where p.dead_at is null and p.stopped_at is null and p.lease_until > worker.now();
  if declared.paused then
    code := 'type_paused';
    sentence := format('The type %s is paused%s, until somebody says `worker resume %s`, or worker.resume(''%s'').', job.job_type,
      (select concat(' by ', e.actor, ' since ', e.at::timestamptz(0)) from worker.job_event e
       where e.job_id is null and e.event = 'pause' and e.detail ->> 'job_type' = job.job_type order by e.id desc limit 1),
      job.job_type, job.job_type);
  elsif not declared.enabled and not declared.fallback then
    code := 'type_disabled';
    sentence := format('The type %s is off: `enabled = false` under [job.%s] in worker.toml. It waits until that is changed and a daemon starts with it.',
      job.job_type, job.job_type);
  elsif declared.name is null then
    code := 'no_worker_for_type';
    sentence := format('Nobody declared the type %s: it waits until a worker.toml has [job.%s] and `worker migrate` or a daemon is started with it.',
      job.job_type, job.job_type);
  elsif alive is null then
    code := 'no_worker_alive';
    sentence := concat('No daemon is alive', (select '; the last one was ' || worker.explain_process(max(p.id)) from worker.process p),
      ': start one with `worker run`.');
  elsif able = 0 then
    code := 'no_worker_for_type';
    sentence := format('%s daemon(s) are alive, but none claims the type %s: their worker.toml does not declare it, or has worker.enabled = false. They are %s%s.',
      cardinality(alive), job.job_type, array_to_string(alive[:3], ', '), case when cardinality(alive) > 3 then ' …' end);
  end if;
end
$$;
comment on function worker.explain_type(worker.job_queue) is 'What its type and the daemons say; part of worker.explain_job';

create or replace function worker.explain_limit(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  slots bigint;
  taken bigint[];
begin
  select count(*) filter (where s.slot > 0), array_agg(s.job_id order by s.job_id) filter (where s.job_id is not null) into slots, taken
  from worker.type_slot s where s.job_type = job.job_type;
  if slots > 0 and cardinality(taken) >= slots then
    code := 'type_limit';
    sentence := format('As many jobs of %s run as its limit of %s allows: %s%s. Each one''s end lets another start; %s.', job.job_type,
      slots, array_to_string(taken[:5], ', '), case when cardinality(taken) > 5 then ' …' end, worker.explain_line(job));
  end if;
end
$$;
comment on function worker.explain_limit(worker.job_queue) is 'Whether the running limit of its type is reached; part of worker.explain_job';

create or replace function worker.explain_key(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  holder worker.job_queue;
  ahead bigint;
begin
  select j.* into holder from worker.key_slot s join worker.job_queue j on j.id = s.job_id where s.key = job.concurrency_key;
  if holder.id is null and not job.parked then
    return;
  end if;
  code := 'concurrency_key_busy';
  select count(*) into ahead from (
    select from worker.job_queue q where q.parked and q.concurrency_key = job.concurrency_key
      and (q.priority, q.scheduled_at, q.id) < (job.priority, job.scheduled_at, job.id) limit 1000) before;
  sentence := format('It waits behind its concurrency key "%s", %s; %s in that line before it.', job.concurrency_key,
    case when holder.status = 'running' then format('which job %s holds: %s runs it since %s, and its end lets the next one start',
           holder.id, worker.explain_process(holder.claimed_by), worker.ago(worker.now() - holder.started_at))
         when holder.id is not null then format('which job %s held until just now: a daemon frees it within a second', holder.id)
         else 'which nobody holds at this moment: the next one starts within a second, if a daemon runs' end,
    case ahead when 0 then 'nobody is' when 1 then '1 job is' when 1000 then '1000 jobs or more are' else ahead || ' jobs are' end);
end
$$;
comment on function worker.explain_key(worker.job_queue) is 'Who holds its concurrency key; part of worker.explain_job';

create or replace function worker.explain_line(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat(case ahead when 0 then 'no job of its type is before it' when 1 then '1 job of its type is before it'
      when 1000 then '1000 jobs of its type or more are before it' else ahead || ' jobs of its type are before it' end,
    case when ahead > 0 and (select t.fair from worker.job_type t where t.name = job.job_type)
         then ', but tenants take turns, so that it waits only for those of its own tenant and one of each other' end)
  from (
    select count(*) as ahead from (
      select from worker.job_queue q
      where q.queued and q.job_type = job.job_type and q.scheduled_at <= worker.now()
        and (q.priority, q.scheduled_at, q.id) < (job.priority, job.scheduled_at, job.id)
      limit 1000) before) counted
$$;
comment on function worker.explain_line(worker.job_queue) is 'How many due jobs of its type are claimed first; part of worker.explain_job';

create or replace function worker.explain_daemons(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when sum(d.held) < sum(d.slots)
    then format('%s, with %s of %s slots taken: it starts at the next look. If it does not, `worker check` may know why.',
      case when count(*) = 1 then 'A daemon runs its type' else count(*) || ' daemons run its type' end, sum(d.held), sum(d.slots))
    else format('All %s slots of %s are taken: it starts when a job ends. More daemons, or more [worker] concurrency, start it sooner.',
      sum(d.slots), case when count(*) = 1 then 'the daemon that runs its type' else 'the ' || count(*) || ' daemons that run its type' end) end
  from (
    select p.slots, (select count(*) from (
        select from worker.job_queue j where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
        order by j.batch limit 20000) held) as held
    from worker.process p
    where p.dead_at is null and p.stopped_at is null and p.lease_until > worker.now() and job.job_type = any (p.types)) d
$$;
comment on function worker.explain_daemons(worker.job_queue) is 'Whether those who run its type have room; part of worker.explain_job';

create or replace function worker.explain_fate(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when not t.enabled then format(' Its type is off, so it runs as its fallback, an HTTP call: `enabled = false` under [job.%s] in worker.toml.', t.name)
    when t.sources -> job.source = 'false' and t.fallback then format(' Its source %s is off, so it runs as the fallback of its type, an HTTP call.', job.source)
    when t.sources -> job.source = 'false' then format(' It will be skipped: its source %s is off, in `sources` of [job.%s] in worker.toml.', job.source, t.name)
    else '' end
  from worker.job_type t where t.name = job.job_type
$$;
comment on function worker.explain_fate(worker.job_queue) is 'What it is started as when it is not what its type is for; part of worker.explain_job';

-- Rights.
revoke all on function
  worker.explain_type(worker.job_queue), worker.explain_limit(worker.job_queue),
  worker.explain_key(worker.job_queue), worker.explain_line(worker.job_queue),
  worker.explain_daemons(worker.job_queue), worker.explain_fate(worker.job_queue)
from public;
grant execute on function
  worker.explain_type(worker.job_queue), worker.explain_limit(worker.job_queue),
  worker.explain_key(worker.job_queue), worker.explain_line(worker.job_queue),
  worker.explain_daemons(worker.job_queue), worker.explain_fate(worker.job_queue)
to worker_read;
