-- One process sleeps but wakes before these rows are due: nothing rings.
insert into worker.asleep values (1, now(), now() - interval '1 hour', now() + interval '1 hour');
