-- What the worker does for a sync. The job's handler (worker/jobs/sync.py) calls these, most of them as steps: what one
-- of them writes and the mark that it is done are one transaction.

create or replace function sync.open_run(sync_id bigint)
returns table (user_id text, provider text, token text, trouble text, page integer, cursor text, orders integer,
               fetched boolean, percent integer, detecting boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    -- Whoever enqueues without sync.start has a sync as well.
    insert into sync.sync_runs (sync_id, tenant_id, user_id, provider, requested_at)
    select j.id, j.tenant_id, j.payload ->> 'user_id', coalesce(j.payload ->> 'provider', 'seller'), j.created_at
      from worker.job_queue as j
     where j.id = open_run.sync_id and j.payload ->> 'user_id' is not null
        on conflict do nothing;
    return query
    select r.user_id, r.provider, a.token,
           case when a.token is null then 'not found' when a.rejected_at is not null then 'rejected'
                when a.expires_at <= worker.now() then 'expired' end,
           coalesce(last.page, 0), last.next_cursor, coalesce(seen.orders, 0)::integer,
           coalesce(last.next_cursor is null and last.page is not null, false),
           coalesce((j.progress ->> 'percent')::integer, 0), r.detect_job is not null
      from sync.sync_runs as r
      join worker.job_queue as j on j.id = r.sync_id
      left join sync.provider_accounts as a on a.user_id = r.user_id and a.provider = r.provider
           and a.tenant_id is not distinct from r.tenant_id
      left join lateral (select p.page, p.next_cursor from sync.sync_pages as p
                          where p.sync_id = r.sync_id order by p.page desc limit 1) as last on true
      left join lateral (select sum(cardinality(p.order_ids)) as orders from sync.sync_pages as p
                          where p.sync_id = r.sync_id) as seen on true
     where r.sync_id = open_run.sync_id;
end
$$;
comment on function sync.open_run(bigint) is
    'What an attempt of a sync begins with: whose it is, the token (or what is wrong with it), and the checkpoint to go on from.';

create or replace function sync.read_orders(orders jsonb) returns setof sync.sync_orders
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- The newest version of an order that a page has twice.
select distinct on (o.order_id) null::text, '', '', o.order_id, o.ordered_at, o.updated_at, o.quantity, o.shipped,
       o.price, o.charged, coalesce(o.refunded, 0), 0::bigint, 0::bigint
  from jsonb_to_recordset(orders) as o (order_id text, ordered_at timestamptz, updated_at timestamptz, quantity integer,
       shipped integer, price numeric, charged numeric, refunded numeric)
 order by o.order_id, o.updated_at desc
$$;
comment on function sync.read_orders(jsonb) is 'The orders of a page, each once; a value that is none is an error.';

create or replace function sync.store_page(sync_id bigint, page integer, cursor text, next_cursor text, orders jsonb)
returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    run     sync.sync_runs;
    ids     text[];
    known   integer;
    changed integer;
begin
    select r.* into strict run from sync.sync_runs as r where r.sync_id = store_page.sync_id;
    select coalesce(array_agg(given.order_id), '{}'), count(kept.order_id),
           count(*) filter (where kept.updated_at < given.updated_at)
      into ids, known, changed
      from sync.read_orders(orders) as given
      left join sync.sync_orders as kept on kept.user_id = run.user_id and kept.provider = run.provider
           and kept.tenant_id is not distinct from run.tenant_id and kept.order_id = given.order_id;

    insert into sync.sync_pages (sync_id, page, cursor, next_cursor, order_ids, added, changed, stored_at)
    values (store_page.sync_id, store_page.page, store_page.cursor, store_page.next_cursor, ids,
            cardinality(ids) - known, changed, worker.now());

    insert into sync.sync_orders as kept (tenant_id, user_id, provider, order_id, ordered_at, updated_at, quantity,
           shipped, price, charged, refunded, first_sync, last_sync)
    select run.tenant_id, run.user_id, run.provider, given.order_id, given.ordered_at, given.updated_at, given.quantity,
           given.shipped, given.price, given.charged, given.refunded, run.sync_id, run.sync_id
      from sync.read_orders(orders) as given
        on conflict on constraint sync_orders_tenant_id_user_id_provider_order_id_key do update
       set last_sync = excluded.last_sync,
           (ordered_at, updated_at, quantity, shipped, price, charged, refunded) = (
               select newest.* from (values
                   (excluded.ordered_at, excluded.updated_at, excluded.quantity, excluded.shipped, excluded.price,
                    excluded.charged, excluded.refunded),
                   (kept.ordered_at, kept.updated_at, kept.quantity, kept.shipped, kept.price, kept.charged,
                    kept.refunded)) as newest (o, updated_at, q, s, p, c, r)
                order by newest.updated_at desc limit 1);
    return jsonb_build_object('orders', cardinality(ids), 'added', cardinality(ids) - known, 'changed', changed);
end
$$;
comment on function sync.store_page(bigint, integer, text, text, jsonb) is
    'Stores a page of orders together with its checkpoint. A page that was stored already, or a cursor that comes a second time, is an error.';

create or replace function sync.reject_token(sync_id bigint) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
update sync.provider_accounts as a
   set rejected_at = worker.now()
  from sync.sync_runs as r
 where r.sync_id = reject_token.sync_id and a.user_id = r.user_id and a.provider = r.provider
   and a.tenant_id is not distinct from r.tenant_id
$$;
comment on function sync.reject_token(bigint) is 'Notes that the provider takes this token no more: further syncs are refused until the user connects again.';

create or replace function sync.begin_detection(sync_id bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    detection bigint;
begin
    select worker.enqueue('sync_detect', jsonb_build_object('sync_id', j.id, 'user_id', j.payload ->> 'user_id'),
                          priority => j.priority::integer, tenant_id => j.tenant_id,
                          correlation_id => j.correlation_id, source => j.source)
      into strict detection
      from worker.job_queue as j
     where j.id = begin_detection.sync_id;
    update sync.sync_runs as r
       set detect_job = detection, detect_asked_at = worker.now()
     where r.sync_id = begin_detection.sync_id;
    return detection;
end
$$;
comment on function sync.begin_detection(bigint) is 'Enqueues the job that looks through what a sync stored.';

create or replace function sync.detection(sync_id bigint, most interval) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select case when j.finished_at is not null then sync.status_word(j.status)
            when j.id is null or r.detect_asked_at + most <= worker.now() then 'late'
            else 'running' end
  from sync.sync_runs as r
  left join worker.job_queue as j on j.id = r.detect_job
 where r.sync_id = detection.sync_id and r.detect_job is not null
$$;
comment on function sync.detection(bigint, interval) is
    'How the detection of a sync stands: running, completed, failed, cancelled, or late when it has been waited for so long. Null when none was begun.';

create or replace function sync.detect(sync_id bigint) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    found_claims integer;
begin
    insert into sync.claims (tenant_id, user_id, provider, order_id, kind, amount, sync_id, found_at)
    select o.tenant_id, o.user_id, o.provider, o.order_id, owed.kind, owed.amount, detect.sync_id, worker.now()
      from sync.sync_orders as o
     cross join lateral (values
               ('short_shipment', (o.quantity - o.shipped) * o.price - o.refunded),
               ('overcharge', o.charged - o.quantity * o.price)) as owed (kind, amount)
     where o.last_sync = detect.sync_id and owed.amount > 0
        on conflict do nothing;
    get diagnostics found_claims = row_count;
    return jsonb_build_object('claims', found_claims);
end
$$;
comment on function sync.detect(bigint) is
    'Looks through the orders that a sync stored for money that is owed: not shipped and not refunded, or charged above the price. What was found before is not found again.';

create or replace function sync.count_rows(sync_id bigint) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'pages', (select count(*) from sync.sync_pages as p where p.sync_id = count_rows.sync_id),
    'orders', (select count(distinct met.order_id) from sync.sync_pages as p, unnest(p.order_ids) as met (order_id)
                where p.sync_id = count_rows.sync_id),
    'added', (select coalesce(sum(p.added), 0) from sync.sync_pages as p where p.sync_id = count_rows.sync_id),
    'changed', (select coalesce(sum(p.changed), 0) from sync.sync_pages as p where p.sync_id = count_rows.sync_id),
    'claims', (select count(*) from sync.claims as c where c.sync_id = count_rows.sync_id),
    'claimed', (select coalesce(sum(c.amount), 0) from sync.claims as c where c.sync_id = count_rows.sync_id))
$$;
comment on function sync.count_rows(bigint) is 'What a sync came to, counted: pages, orders (added, changed), claims and their sum.';

create or replace function sync.record_alert(parent jsonb, error text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp
as $$
insert into sync.alerts (sync_id, tenant_id, user_id, code, message, next_action, raised_at)
select r.sync_id, r.tenant_id, r.user_id, told.error ->> 'code', told.error ->> 'message', told.error ->> 'next_action',
       worker.now()
  from sync.sync_runs as r
 cross join (select sync.error_of('failed', coalesce(record_alert.error, 'it said nothing'), null) as error) as told
 where r.sync_id = (record_alert.parent ->> 'id')::bigint
returning id
$$;
comment on function sync.record_alert(jsonb, text) is 'Notes a sync that gave up, for whoever watches sync.alerts.';
