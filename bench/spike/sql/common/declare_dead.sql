-- FOR UPDATE waits for claims in flight (they hold FOR KEY SHARE); the beat, a plain UPDATE, does not wait for them.
with locked as (select p.id from worker.process p where p.id = $1 for update)
update worker.process p set dead_at = now() from locked where p.id = locked.id
