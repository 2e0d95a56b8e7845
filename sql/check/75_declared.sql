-- What worker.toml declares, what the database knows of it, and rows of types that neither has.
with file as (
  select w.name, w.digest from jsonb_to_recordset($1::jsonb #> '{config,types}') as w (name text, digest text)
), served as (
  select f.name from file f
  union
  select unnest(p.types) from worker.process p where p.dead_at is null and p.stopped_at is null and p.lease_until >= worker.now()
), schedules as (
  select w.name, w.digest from jsonb_to_recordset($1::jsonb #> '{config,schedules}') as w (name text, digest text)
), depth as materialized (
  select d.job_type, d.declared, d.pending, d.waiting from worker.queue_depth d where d.pending > 0
)
select 'warning' as level, 'types.undeclared' as code,
  'not declared in the database yet: ' || string_agg(f.name, ', ' order by f.name) as said, 'run `worker migrate`, or start the daemon' as cure
from file f where not exists (select from worker.job_type t where t.name = f.name) having count(*) > 0
union all
select 'warning', 'types.changed', 'the database has another declaration of ' || string_agg(f.name, ', ' order by f.name),
  'run `worker migrate`, or start the daemon'
from file f join worker.job_type t on t.name = f.name where t.digest is distinct from f.digest having count(*) > 0
union all
select 'warning', 'types.unserved',
  format('%s jobs wait of %s, which %s', d.pending, d.job_type,
    case when d.declared then 'neither this worker.toml nor a daemon that is alive declares' else 'nobody declares' end),
  format('declare [job.%s] in worker.toml, or cancel them: `select worker.cancel(j.id, ''nobody runs it'') from worker.jobs j where j.job_type = %L and j.status = ''pending'';`',
    d.job_type, d.job_type)
from depth d where not exists (select from served s where s.name = d.job_type)
union all
select 'info', 'types', format('the database knows %s, which this worker.toml does not declare', string_agg(t.name, ', ' order by t.name)), null
from worker.job_type t
where not exists (select from file f where f.name = t.name) and not exists (select from depth d where d.job_type = t.name)
having count(*) > 0
union all
select 'warning', 'types.paused', format('%s is paused, and %s of its jobs are due', t.name, d.waiting), format('run `worker resume %s`', t.name)
from worker.job_type t join depth d on d.job_type = t.name where t.paused and d.waiting > 0
union all
select 'warning', 'schedules.undeclared', 'not declared in the database, or otherwise: ' || string_agg(s.name, ', ' order by s.name),
  'run `worker migrate`, or start the daemon'
from schedules s left join worker.schedule w on w.name = s.name where w.digest is distinct from s.digest having count(*) > 0
union all
select 'warning', 'schedules.failing', format('the last run of %s came to nothing: %s', s.name, s.error),
  'mend what it says: it is tried again by itself; or `worker schedule pause ' || s.name || '`'
from worker.schedules s where s.state = 'failing'
union all
select 'warning', 'schedules.late', format('%s was to run %s ago, and nobody did', w.name, date_trunc('second', worker.now() - w.next_at)),
  'start a daemon whose worker.toml declares it, `worker run`'
from worker.schedule w
where w.enabled and not w.paused and w.error is null
  and w.next_at < worker.now() - make_interval(secs => ($1::jsonb #>> '{limits,seconds}')::double precision)
