-- What functions the name of a step stands for, on the search_path of this connection, and who asks.
select quote_ident(current_user) as login, (pg_identify_object('pg_proc'::regclass, p, 0)).identity as function
from unnest(worker.visible_functions($1)) p
