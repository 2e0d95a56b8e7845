-- What the HTTP API calls: an insert into the view of the old words, and the event that tells who asked for it.

create or replace function club.submit(asked jsonb, priority integer, tenant text) returns bigint
language plpgsql
as $$
declare
    job bigint;
begin
    insert into club.background_job_status as b (job_payload, priority, tenant_id)
    values (submit.asked, submit.priority, submit.tenant)
    returning b.id into job;
    perform worker.note_submission(job, coalesce(current_setting('worker.holder', true), '') = '');
    return job;
end
$$;
comment on function club.submit(jsonb, integer, text) is
    'Enqueues a stats update, or retries one, in the first system''s words, for a program that acts for somebody (worker.submit)';
