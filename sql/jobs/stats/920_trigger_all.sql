-- All clubs at once, for an operator: after a correction of many matches, or a release that computes something anew.

create or replace function club.trigger_all() returns bigint
language sql
as $$
    select worker.enqueue_many('stats_update',
        (select coalesce(array_agg(jsonb_build_object('tenant_id', active.tenant_id, 'triggeredBy', 'superadmin')
                                   order by active.tenant_id), '{}')
           from club.active_tenants() as active),
        source => 'admin')
$$;
comment on function club.trigger_all() is
    'Enqueues stats_update for every active club, and answers with how many jobs were added; clubs whose job waits already have none added';
