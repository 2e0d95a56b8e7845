-- No lock: the floor, with the calls of the functions.
create function worker.lock_step(wanted text) returns void language plpgsql as $$ begin end $$;
create function worker.unlock_step(held text) returns void language plpgsql as $$ begin end $$;
