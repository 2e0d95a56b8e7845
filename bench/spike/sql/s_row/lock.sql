-- A lasting row, locked FOR UPDATE; inserted when absent, and then the insertion itself is the lock.
-- The loop is needed: whoever waits for a row that a sweep deletes gets no row.
create unlogged table worker.step_lock (key text primary key);
create function worker.lock_step(wanted text) returns void language plpgsql as $$
begin
    loop
        perform from worker.step_lock l where l.key = wanted for update;
        exit when found;
        insert into worker.step_lock (key) values (wanted) on conflict do nothing;
        exit when found;
    end loop;
end $$;
create function worker.unlock_step(held text) returns void language plpgsql as $$ begin end $$;
