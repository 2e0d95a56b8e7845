-- Rows of declared concurrency keys last (there are few, and locking them leaves no dead rows behind);
-- rows of one job's step go at the end of the transaction that made them.
create unlogged table worker.step_lock (key text primary key)
    with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
create function worker.lock_step(wanted text) returns void language plpgsql as $$
begin
    loop
        perform from worker.step_lock l where l.key = wanted for update;
        exit when found;
        insert into worker.step_lock (key) values (wanted) on conflict do nothing;
        exit when found;
    end loop;
end $$;
create function worker.unlock_step(held text) returns void language plpgsql as $$
begin
    if held like 'job %' then
        delete from worker.step_lock l where l.key = held;
    end if;
end $$;
