-- A row that lives only inside the transaction: inserted first, deleted last, never seen by anybody.
-- A second one waits for the end of the first one's transaction at the primary key, whatever that end is.
create unlogged table worker.step_lock (key text primary key)
    with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
create function worker.lock_step(wanted text) returns void language plpgsql as $$
begin
    insert into worker.step_lock (key) values (wanted);
end $$;
create function worker.unlock_step(held text) returns void language plpgsql as $$
begin
    delete from worker.step_lock l where l.key = held;
end $$;
