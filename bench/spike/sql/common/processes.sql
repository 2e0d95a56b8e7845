insert into worker.process (id, open_batch) select i, 1000000000 from generate_series(1, 10) i;
insert into worker.job_type (name, deadline) select 'type_' || i, interval '1 hour' from generate_series(0, 49) i;
