-- One process sleeps: every due row rings it.
insert into worker.asleep values (1, now(), now() + interval '1 hour', now() + interval '1 hour');
