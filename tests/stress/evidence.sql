-- What really happened, written down by the database itself. Nothing of the daemon reads or writes here.
create schema evidence;

-- One line for each effect of a step or handler, in the effect's own transaction.
create table evidence.fx (
  job_id bigint not null,
  step text not null,
  claim bigint,
  pid integer not null default pg_backend_pid(),
  at timestamptz not null default clock_timestamp()
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
  asked boolean
);

-- Each mark of a step, with the claim that the job had at that moment.
create table evidence.marks (
  at timestamptz not null default clock_timestamp(),
  job_id bigint not null,
  step text not null,
  status text not null,
  claim bigint,
  job_claim bigint,
  job_status text
);

create function evidence.note_job() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.hist (op, job_id, job_type, old_status, new_status, old_claim, new_claim, old_attempt,
    new_attempt, max_attempts, process, result_claim, scheduled_at, asked)
  values (tg_op, coalesce(new.id, old.id), coalesce(new.job_type, old.job_type), old.status, new.status, old.claim,
    new.claim, old.attempt, new.attempt, coalesce(new.max_attempts, old.max_attempts), new.claimed_by,
    case when jsonb_typeof(new.result -> 'claim') = 'number' then (new.result ->> 'claim')::bigint end,
    new.scheduled_at, new.cancel_requested_at is not null);
  return null;
end $$;

create function evidence.note_step() returns trigger language plpgsql security definer as $$
begin
  insert into evidence.marks (job_id, step, status, claim, job_claim, job_status)
  select new.job_id, new.name, new.status, new.claim, j.claim, j.status
  from worker.job_queue j where j.id = new.job_id;
  return null;
end $$;

create trigger evidence_of_birth after insert or delete on worker.job_queue
  for each row execute function evidence.note_job();
create trigger evidence_of_change after update on worker.job_queue
  for each row when (
    (old.status, old.claim, old.attempt) is distinct from (new.status, new.claim, new.attempt))
  execute function evidence.note_job();
create trigger evidence_of_steps after update on worker.job_step
  for each row when (new.status is distinct from old.status) execute function evidence.note_step();

-- A step as the experiments use it: one effect, then a little work.
create function evidence.step(job_id bigint, step text, seconds double precision default 0.02) returns void
language plpgsql as $$
begin
  insert into evidence.fx (job_id, step) values (job_id, step);
  perform pg_sleep(seconds);
end $$;

grant usage on schema evidence to public;
grant select, insert on evidence.fx to public;
