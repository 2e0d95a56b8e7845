-- What really happened, written down by the database itself. Nothing of the daemon reads or writes here.
create schema evidence;

-- One line for each effect of a step or handler, in the effect's own transaction.
create table evidence.fx (
  job_id bigint not null,
  step text not null,
  claim bigint,
  pid integer not null default pg_backend_pid(),
  at timestamptz not null default clock_timestamp(),
  xid bigint not null default pg_current_xact_id()::text::bigint
);

-- Each change of a job's row that matters, old and new.
create table evidence.hist (
  n bigint generated always as identity,
  at timestamptz not null default clock_timestamp(),
  op text not null,
  job_id bigint not null,
  job_type text not null,
  old_status text,
  new_status text,
  old_claim bigint,
  new_claim bigint,
  old_attempt integer,
  new_attempt integer,
  max_attempts integer,
  process bigint,
  result_claim bigint,
  scheduled_at timestamptz,
  asked boolean,
  old_process bigint,
  xid bigint not null default pg_current_xact_id()::text::bigint
);
create index on evidence.hist (job_id, n);

-- Each mark of a step, with the claim that the job had at that moment.
create table evidence.marks (
  at timestamptz not null default clock_timestamp(),
  job_id bigint not null,
  step text not null,
  status text not null,
  claim bigint,
  job_claim bigint,
  job_status text,
  xid bigint not null default pg_current_xact_id()::text::bigint
);

-- From when to when a process that lived did not beat.
create table evidence.silence (process bigint not null, began timestamptz not null, ended timestamptz not null);

-- Two executions of one step that ran side by side: the second writes it down.
create table evidence.overlap (job_id bigint not null, step text not null, at timestamptz not null default clock_timestamp());

-- What was seen from outside: calls that a receiver answered, what daemons held, what they said of their health, and
-- from when to when nothing could work. `hook` and `cap` say what to expect of these.
create table evidence.receipt (webhook_id text not null, job_id bigint, at timestamptz not null default clock_timestamp());
create table evidence.hook (job_type text primary key);
create table evidence.gauge (pid integer, what text not null, value double precision not null, at timestamptz not null);
create table evidence.cap (what text primary key, most double precision not null);
-- The queue forgets a job's events with the job, and may do so before anybody asks.
create table evidence.event (job_id bigint, event text not null);
create table evidence.ready (pid integer, ready boolean not null, at timestamptz not null);
create table evidence.outage (began timestamptz not null, ended timestamptz not null);

create function evidence.note_job() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.hist (op, job_id, job_type, old_status, new_status, old_claim, new_claim, old_attempt,
    new_attempt, max_attempts, process, result_claim, scheduled_at, asked, old_process)
  values (tg_op, coalesce(new.id, old.id), coalesce(new.job_type, old.job_type), old.status, new.status, old.claim,
    new.claim, old.attempt, new.attempt, coalesce(new.max_attempts, old.max_attempts), new.claimed_by,
    case when jsonb_typeof(new.result -> 'claim') = 'number' then (new.result ->> 'claim')::bigint end,
    new.scheduled_at, new.cancel_requested_at is not null, old.claimed_by);
  return null;
end $$;

create function evidence.note_step() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.marks (job_id, step, status, claim, job_claim, job_status)
  select new.job_id, new.name, new.status, new.claim, j.claim, j.status
  from worker.job_queue j where j.id = new.job_id;
  return null;
end $$;

create function evidence.note_event() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.event values (new.job_id, new.event);
  return null;
end $$;

create function evidence.note_silence() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.silence values (new.id, old.beat_at, new.beat_at);
  return null;
end $$;

create trigger evidence_of_silence after update on worker.process
  for each row when (new.beat_at > old.beat_at + interval '2 s') execute function evidence.note_silence();
create trigger evidence_of_events after insert on worker.job_event
  for each row execute function evidence.note_event();
create trigger evidence_of_birth after insert or delete on worker.job_queue
  for each row execute function evidence.note_job();
create trigger evidence_of_change after update on worker.job_queue
  for each row when (
    (old.status, old.claim, old.attempt) is distinct from (new.status, new.claim, new.attempt))
  execute function evidence.note_job();
create trigger evidence_of_steps after update on worker.job_step
  for each row when (new.status is distinct from old.status) execute function evidence.note_step();
create trigger evidence_of_new_steps after insert on worker.job_step
  for each row when (new.status = 'completed') execute function evidence.note_step();

-- A step as the experiments use it: one effect, then a little work.
create function evidence.step(job_id bigint, step text, seconds double precision default 0.02) returns void
language plpgsql as $$
begin
  -- A transaction that ends lets go of its number first, which wakes whoever waits for it, and of this lock then.
  if not pg_try_advisory_xact_lock(hashtext(step), job_id::integer) and exists (
    select from pg_locks held join pg_locks xid on xid.pid = held.pid and xid.locktype = 'transactionid' and xid.granted
      and xid.mode = 'ExclusiveLock'
    where held.locktype = 'advisory' and held.objsubid = 2 and held.pid <> pg_backend_pid()
      and held.classid::bigint = hashtext(step)::bigint & 4294967295 and held.objid::bigint = job_id) then
    insert into evidence.overlap (job_id, step) values (job_id, step);
  end if;
  insert into evidence.fx (job_id, step) values (job_id, step);
  perform pg_sleep(seconds);
end $$;

grant usage on schema evidence to public;
grant select, insert on evidence.fx, evidence.overlap to public;
