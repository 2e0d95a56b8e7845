-- Heap and index bytes of everything that holds jobs.
select sum(pg_table_size(c.oid))::bigint as heap, sum(pg_indexes_size(c.oid))::bigint as indexes
  from pg_class c
 where c.relnamespace = 'worker'::regnamespace and c.relkind = 'r'
   and c.relname in ('job_queue', 'job_history', 'job_done')
