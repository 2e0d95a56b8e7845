select worker.settle(array[$1::bigint], array[$2::bigint], array['completed'], array[null::text], array[null::interval], array[null::jsonb])
