-- What `worker exporter` serves.

create or replace function worker.exported() returns jsonb
language sql stable
begin atomic
  select worker.health() || jsonb_build_object(
    'declared', (select coalesce(jsonb_agg(t.name order by t.name), '[]') from worker.job_type t),
    -- The oldest first: where there are too many, those that have been shown go on to be.
    'counts', (
      select coalesce(jsonb_agg(jsonb_build_array(c.series, c.labels, c.value) order by c.since, c.series, c.labels), '[]')
      from worker.tally c));
end;
comment on function worker.exported() is
  'Everything that the exporter serves, in one answer: worker.health(), the names of declared types, and what all daemons counted';

-- Rights.
revoke all on function worker.exported() from public;
grant execute on function worker.exported() to worker_read;
