-- Who may do what. Nobody is granted a write to a table.

revoke all on all functions in schema sync from public;
grant usage on schema sync to worker_enqueue, worker_tenant, worker_operate, worker_read, worker_run;

grant execute on function
    sync.status_word(text), sync.current_user_id(), sync.sees(text, text), sync.error_of(text, text, timestamptz),
    sync.status(text, bigint), sync.active(text), sync.history(text, integer, integer, text), sync.statistics(text),
    sync.results(text, bigint), sync.count_rows(bigint)
to worker_enqueue, worker_tenant, worker_read;

grant execute on function
    sync.connect(text, text, text, timestamptz, text), sync.disconnect(text, text, text),
    sync.start(text, text, text, integer, text, interval, text), sync.bulk_start(jsonb, text),
    sync.cancel(text, bigint, text), sync.queue_status(), sync.health(interval)
to worker_enqueue, worker_operate;
grant execute on function sync.queue_status(), sync.health(interval), sync.check(), sync.check_types(),
    sync.check_rights(), sync.check_work()
to worker_read;
grant execute on function sync.force_clear(text, text), sync.cleanup(interval, integer) to worker_operate;

grant execute on function
    sync.open_run(bigint), sync.read_orders(jsonb), sync.store_page(bigint, integer, text, text, jsonb),
    sync.reject_token(bigint), sync.begin_detection(bigint), sync.detection(bigint, interval), sync.detect(bigint),
    sync.record_alert(jsonb, text), sync.start_due(interval, interval, integer),
    sync.cleanup(interval, integer)
to worker_run;

grant select on sync.syncs, sync.sync_progress, sync.detection_queue, sync.sync_pages, sync.sync_orders, sync.claims,
    sync.alerts, sync.sync_runs
to worker_enqueue, worker_tenant, worker_read;
grant select on sync.error_codes to public;

-- Row-level security. provider_accounts has no policy: its rows, with the tokens, are seen by nobody but its functions.
alter table sync.provider_accounts enable row level security;
alter table sync.sync_runs enable row level security;
alter table sync.sync_pages enable row level security;
alter table sync.sync_orders enable row level security;
alter table sync.claims enable row level security;
alter table sync.alerts enable row level security;

drop policy if exists own on sync.sync_runs;
create policy own on sync.sync_runs for select using (sync.sees(tenant_id, user_id));
drop policy if exists own on sync.sync_pages;
create policy own on sync.sync_pages for select
    using (exists (select from sync.sync_runs as r where r.sync_id = sync_pages.sync_id));
drop policy if exists own on sync.sync_orders;
create policy own on sync.sync_orders for select using (sync.sees(tenant_id, user_id));
drop policy if exists own on sync.claims;
create policy own on sync.claims for select using (sync.sees(tenant_id, user_id));
drop policy if exists own on sync.alerts;
create policy own on sync.alerts for select using (sync.sees(tenant_id, user_id));
