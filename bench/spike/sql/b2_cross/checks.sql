-- The bounds of what a producer may write, as domains: tested only where a value of the column is made,
-- so claim and settle do not pay for them.
create domain worker.type_name  as text        check (value ~ '^[a-z][a-z0-9_]{0,62}$');
create domain worker.short_text as text        check (octet_length(value) <= 255);
create domain worker.document   as jsonb       check (octet_length(value::text) <= 65536);
create domain worker.instant    as timestamptz check (value between '2000-01-01' and '9000-01-01');
create domain worker.rank       as smallint    check (value between 0 and 1000);
create domain worker.tries      as integer     check (value between 1 and 1000);
alter table worker.job_queue
    alter job_type type worker.type_name, alter payload type worker.document, alter scheduled_at type worker.instant,
    alter expires_at type worker.instant, alter priority type worker.rank, alter max_attempts type worker.tries,
    alter unique_key type worker.short_text, alter concurrency_key type worker.short_text,
    alter tenant_id type worker.short_text, alter correlation_id type worker.short_text,
    alter traceparent type worker.short_text, alter source type worker.short_text;

-- And what must agree between columns, which only the table can say: booleans and nulls, cheap to test again.
alter table worker.job_queue
    add constraint pending_is_queued_or_parked check ((status = 'pending') = (queued or parked) and not (queued and parked)),
    add constraint final_is_finished check ((finished_at is not null) = (status not in ('pending', 'running'))),
    add constraint trouble_is_failed_or_cancelled check (trouble = (status in ('failed', 'cancelled'))),
    add constraint running_is_claimed check (status <> 'running' or (claim is not null and started_at is not null));
