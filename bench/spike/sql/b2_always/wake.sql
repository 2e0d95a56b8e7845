-- What the bell replaces: every statement notifies.
create unlogged table worker.asleep (process bigint primary key, since timestamptz, due timestamptz, until timestamptz);
create function worker.ring() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('worker', '');
    return null;
end $$;
create trigger ring after insert on worker.job_queue for each statement execute function worker.ring();
