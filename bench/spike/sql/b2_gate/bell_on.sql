-- One process goes to sleep: mark and gate, one after another for all processes, committed before it looks.
lock table worker.asleep in share row exclusive mode;
insert into worker.asleep (process, due, until) values (1, now() + interval '1 hour', now() + interval '15 seconds')
    on conflict (process) do update set due = excluded.due, until = excluded.until;
select setval('worker.bell', greatest(pg_sequence_last_value('worker.bell'),
                                      (select ceil(extract(epoch from max(a.until)))::bigint from worker.asleep a)));
