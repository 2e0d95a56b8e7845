-- Transaction advisory lock on a hash of the key. Anybody who may connect can take it.
create function worker.lock_step(wanted text) returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(wanted, 7));
end $$;
create function worker.unlock_step(held text) returns void language plpgsql as $$ begin end $$;
