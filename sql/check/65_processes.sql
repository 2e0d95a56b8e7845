-- Daemons that went without a word, and jobs that nobody is there for.
with processes as (
  select p.id, p.host, p.pid, p.types, p.dead_at is null and p.stopped_at is null and p.lease_until >= worker.now() as alive,
    p.dead_at is null and p.stopped_at is null and p.lease_until < worker.now() as silent,
    p.dead_at is not null and p.emptied_at is null as unrescued
  from worker.process p
), due as (
  select d.job_type, d.waiting, d.oldest_due from worker.queue_depth d
  where d.declared and d.oldest_due > make_interval(secs => ($1::jsonb #>> '{limits,seconds}')::double precision)
)
select 'warning' as level, 'processes.silent' as code,
  format('the daemon %s (%s, pid %s) went without a word, and none is alive to notice', p.id, p.host, p.pid) as said,
  'start a daemon, `worker run`: it declares the other dead and takes its jobs over' as cure
from processes p where p.silent and not exists (select from processes a where a.alive)
union all
select 'warning', 'processes.unrescued', format('the daemon %s (%s, pid %s) is dead, and its jobs are not taken over', p.id, p.host, p.pid),
  'start a daemon, `worker run`: it takes them over'
from processes p where p.unrescued and not exists (select from processes a where a.alive)
union all
select 'warning', 'processes.none', format('%s jobs of %s are due for up to %s, and no daemon that is alive runs them', d.waiting, d.job_type,
    date_trunc('second', d.oldest_due)), 'start a daemon whose worker.toml declares it, `worker run`'
from due d where not exists (select from processes a where a.alive and d.job_type = any (a.types))
  and not exists (select from worker.job_type t where t.name = d.job_type and (t.paused or not t.enabled))
