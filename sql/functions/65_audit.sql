-- The audit: every transition of a job whose type says `audit = true` is an event, in the transaction that made it.
--
-- Who calls these has seen already that there is such a type: the others pay for no statement. Parking is no transition.
-- cancel, retry and rescue write their events themselves, for all types.

create or replace function worker.note_insert() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  insert into worker.job_event (job_id, event, actor, detail)
  select n.id, 'enqueued', n.enqueued_by, jsonb_strip_nulls(jsonb_build_object(
    'to', n.status, 'reason', n.finish_reason, 'parent', n.parent_id, 'source', n.source))
  from new_rows n join worker.job_type t on t.name = n.job_type and t.audit
  order by n.id;
  return null;
end
$$;
comment on function worker.note_insert() is 'Trigger: the event `enqueued` of each new row whose type is audited';

-- Whoever fills a row of an audited type says so in a setting. That it is there at all is what counts, to the session's
-- end: its value is anybody's to change, even within the statement, and a statement inside of this one would take it away.
create or replace trigger audit after insert on worker.job_queue
referencing new table as new_rows for each statement
when (current_setting('worker.audit', true) is not null)
execute function worker.note_insert();

create or replace function worker.note_claims(me bigint, jobs worker.claimed[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  insert into worker.job_event (job_id, event, actor, detail)
  select c.id, 'claimed', worker.caller(), jsonb_build_object(
    'from', 'pending', 'to', 'running', 'claim', c.claim, 'attempt', c.attempt, 'process', me)
  from unnest(jobs) c join worker.job_type t on t.name = c.job_type and t.audit
  order by c.id
$$;
comment on function worker.note_claims(bigint, worker.claimed[]) is 'The event `claimed` of each claimed job whose type is audited';

create or replace function worker.note_verdicts(me bigint, verdicts worker.verdict[], ids bigint[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off set jit = off
as $$
  insert into worker.job_event (job_id, event, actor, detail)
  select j.id,
    case
      when j.status <> 'pending' then j.status
      when v.snoozed then 'snoozed'
      when v.counted or v.error is not null then 'retried'
      when j.batch = any (p.closed) then 'unclaimed'  -- its claim's answer never arrived: the number was closed first
      else 'released' end,
    worker.caller(),
    jsonb_strip_nulls(jsonb_build_object('from', 'running', 'to', j.status, 'claim', v.claim,
      'attempt', j.attempt + (not v.counted)::integer, 'process', me, 'reason', j.finish_reason))
  from unnest(verdicts) v
  join worker.job_queue j on j.id = v.id and j.claim = v.claim
  join worker.job_type t on t.name = j.job_type and t.audit
  left join worker.process p on p.id = me
  where v.id = any (ids)
  order by j.id
$$;
comment on function worker.note_verdicts(bigint, worker.verdict[], bigint[]) is
  'What became of each settled job whose type is audited: its final status, or retried, snoozed, released, unclaimed';

create or replace function worker.note_waiting(event text, ids bigint[], made text default null) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  insert into worker.job_event (job_id, event, actor, detail)
  select j.id, event, coalesce(made, worker.caller()), jsonb_strip_nulls(jsonb_build_object(
    'from', 'pending', 'to', j.status, 'reason', j.finish_reason))
  from worker.job_queue j join worker.job_type t on t.name = j.job_type and t.audit
  where j.id = any (ids)
  order by j.id
$$;
comment on function worker.note_waiting(text, bigint[], text) is
  'The event of pending jobs whose type is audited: expired, or replaced by the newer one that `made` enqueued';

create or replace view worker.history with (security_invoker = true) as
select e.id, e.job_id, j.job_type, j.tenant_id, e.at, e.event,
  coalesce(e.detail ->> 'from', e.detail ->> 'was') as from_status,
  case e.event when 'retry' then 'pending' when 'rescue' then null
    when 'cancel' then case when e.detail ->> 'was' = 'pending' then 'cancelled' end
    else e.detail ->> 'to' end as to_status,
  (e.detail ->> 'attempt')::integer as attempt, (e.detail ->> 'claim')::bigint as claim,
  (e.detail ->> 'process')::bigint as process, e.detail ->> 'reason' as reason, e.actor
from worker.job_event e left join worker.job_queue j on j.id = e.job_id
where e.job_id is not null;
comment on view worker.history is
  'The events of jobs in columns. Those with a to_status are transitions: of an audited type all of them, each once; of the others what a person did';

-- Rights.
revoke all on function worker.note_insert(), worker.note_claims(bigint, worker.claimed[]),
  worker.note_verdicts(bigint, worker.verdict[], bigint[]), worker.note_waiting(text, bigint[], text) from public;
grant select on worker.history to worker_read;
