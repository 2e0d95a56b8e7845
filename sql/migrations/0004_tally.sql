-- What daemons counted, for whoever cannot reach them: totals for the exporter, spans of time for the page.

set local role worker_owner;

create unlogged table worker.tally (
  series text not null check (octet_length(series) <= 200),
  labels jsonb not null default '{}' check (octet_length(labels::text) <= 2000),
  value  double precision not null default 0,
  since  timestamptz not null default clock_timestamp(),
  primary key (series, labels)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
comment on table worker.tally is 'Counters of all daemons together, each daemon adds what it counted since it last did; lost with a crash of the server, which a counter may be';

create unlogged table worker.trend (
  job_type  text not null,
  at        timestamptz not null,
  completed integer not null default 0,
  failed    integer not null default 0,
  again     integer not null default 0,
  other     integer not null default 0,
  waits     integer[] not null default '{}',
  runs      integer[] not null default '{}',
  primary key (job_type, at)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
create index trend_by_time on worker.trend (at);
comment on table worker.trend is 'Attempts that ended within each five minutes, by type: how, and after how long, as counts in the buckets of the metrics of waits and durations';
comment on column worker.trend.again is 'Attempts after which the job was pending again: retried, snoozed or released';
comment on column worker.trend.other is 'Skipped and cancelled';

reset role;
