-- A step reduced to what costs: lock, effect, mark. Every variant brings its own worker.lock_step and worker.unlock_step.
create schema worker;
create table worker.effect (job_id bigint, at timestamptz);
create table worker.job_step (
    job_id bigint, name text, status text, claim bigint, finished_at timestamptz, primary key (job_id, name)
);

create function worker.run_step(job bigint, step text, fence bigint, key text) returns text language plpgsql as $$
declare
    before text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '1s', true);
    perform worker.lock_step(key);
    perform set_config('lock_timeout', before, true);
    perform from worker.job_step s where s.job_id = job and s.name = step and s.status = 'completed';
    if found then
        perform worker.unlock_step(key);
        return 'already';
    end if;
    insert into worker.effect values (job, clock_timestamp());
    insert into worker.job_step as s values (job, step, 'completed', fence, clock_timestamp())
        on conflict (job_id, name) do update set status = 'completed', claim = fence, finished_at = clock_timestamp();
    perform worker.unlock_step(key);
    return 'done';
end $$;
