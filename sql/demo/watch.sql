-- For the demo only: what its scenes ask about the queue and the club. Needs schema worker and sql/demo/club.sql.

create or replace function demo.daemons() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$ select count(*) from worker.process where stopped_at is null $$;
comment on function demo.daemons() is 'Daemons that have registered and not taken their leave.';

create or replace function demo.newest_job() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$ select max(id) from worker.jobs $$;
comment on function demo.newest_job() is 'The number of the job that was enqueued last.';

create or replace function demo.job_of(match_id bigint) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$ select max(id) from worker.jobs where (payload ->> 'match_id')::bigint = job_of.match_id $$;
comment on function demo.job_of(bigint) is 'The stats job that names this match, or null when there is none.';

create or replace function demo.runs_since(job bigint) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$ select count(*) from worker.jobs where job_type = 'stats_update' and id > job $$;
comment on function demo.runs_since(bigint) is 'How many stats jobs were enqueued after this job.';

create or replace function demo.quiet(type text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$ select not exists (select from worker.job_queue where job_type = type and status in ('pending', 'running')) $$;
comment on function demo.quiet(text) is 'Whether every job of this type is at its end.';

create or replace function demo.matches_behind(target_tenant_id uuid) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
select count(*)
  from club.match
 where match.tenant_id = target_tenant_id and match.status = 'finished'
   and not exists (select from club.match_report as report
                    where report.tenant_id = match.tenant_id and report.match_id = match.id)
$$;
comment on function demo.matches_behind(uuid) is 'Finished matches of a club that the statistics do not know yet.';

create or replace function demo.times(job bigint) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
           'wait_ms',    1000 * extract(epoch from stats.wait),
           'run_ms',     1000 * extract(epoch from stats.duration),
           'visible_ms', 1000 * extract(epoch from stats.finished_at - stats.created_at),
           'webhook_ms', 1000 * extract(epoch from max(call.finished_at) - stats.finished_at))
  from worker.jobs as stats
  join worker.jobs as call on call.parent_id = stats.id
 where stats.id = job
 group by stats.wait, stats.duration, stats.created_at, stats.finished_at
$$;
comment on function demo.times(bigint) is
  'Of a stats job that is done and told: from due to begun, its run, from its enqueue to its end, from its end to the end of its webhook.';
