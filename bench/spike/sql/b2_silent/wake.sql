-- No trigger: the base.
create unlogged table worker.asleep (process bigint primary key, since timestamptz, due timestamptz, until timestamptz);
