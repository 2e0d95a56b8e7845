-- One job, and a ring for the bare worker that listens.
create function raw_ring(payload jsonb) returns void language sql as $$
  insert into raw_job (payload) values (payload);
  select pg_notify('raw', '')
$$;
