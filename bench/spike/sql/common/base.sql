-- Everything around the queue table that claim and settle touch.
create schema worker;
set search_path = worker;

create sequence worker.claim_number;

create table worker.process (
    id              bigint primary key,
    dead_at         timestamptz,
    closed_batch    bigint not null default 0,   -- no claim with this number or a lower one any more
    open_batch      bigint not null default 0,   -- the lowest batch that still holds running rows, told by the beat
    seen_at         timestamptz not null default now()
) with (fillfactor = 50);

create table worker.job_type (
    name     text primary key,
    paused   boolean not null default false,
    enabled  boolean not null default true,
    deadline interval
);

create table worker.key_slot (
    key    text primary key,
    job_id bigint not null
);
