-- The claim's look where a type has a limit, a rate or turns; the others look in one statement, inside of worker.claim.

create or replace function worker.gated_lines(types text[])
returns table (names text[], ranks smallint[], limited boolean, rated boolean, fair boolean)
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  -- Priority by priority, at random inside one; neighbours without any of the three go together in one look.
  with line as (
    select l.job_type, l.priority, coalesce(t.limits, '{}') ? 'running' as limited, coalesce(t.limits, '{}') ? 'rate' as rated,
      t.fair, random() as chance
    from worker.lines(worker.open_types(types)) l join worker.job_type t on t.name = l.job_type
  ), island as (
    select l.*, row_number() over placed as at,
      count(*) filter (where l.limited or l.rated or l.fair) over placed as gates
    from line l
    window placed as (order by l.priority, l.chance rows unbounded preceding)
  )
  select array_agg(i.job_type order by i.at), array_agg(i.priority order by i.at), i.limited, i.rated, i.fair
  from island i
  group by i.gates, i.limited, i.rated, i.fair
  order by min(i.at)
$$;
comment on function worker.gated_lines(text[]) is
  'The lines that have queued rows, as worker.lines, in the order in which a claim looks at them; those whose limit is reached are left out';

create or replace function worker.pick_lines(names text[], ranks smallint[], room integer, instant timestamptz) returns tid[]
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select hit.row_id
    from unnest(names, ranks) with ordinality as line (job_type, priority, at)
    cross join lateral (
      select q.ctid as row_id from worker.job_queue q
      where q.queued and q.job_type = line.job_type and q.priority = line.priority and q.scheduled_at <= instant
        and (q.expires_at is null or q.expires_at > instant)
      order by q.scheduled_at, q.id
      limit room for no key update skip locked) hit
    limit room);
end
$$;
comment on function worker.pick_lines(text[], smallint[], integer, timestamptz) is 'Locks up to so many due rows of some lines, in their order';

create or replace function worker.pick(types text[], n integer, instant timestamptz,
  out rows tid[], out slots tid[], out rated boolean, out fair boolean, out again boolean, out soon boolean)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  line record;
  turns record;
  place integer := n;  -- for rows that start if their key is free
  room integer;
  hits tid[];
  taken tid[];
begin
  rows := '{}'; slots := '{}'; rated := false; fair := false; again := false; soon := false;
  for line in select * from worker.gated_lines(types) loop
    exit when place <= 0;
    -- Rows that find no token are put off a hundred at a time, and take no place from the others.
    room := case when line.rated then greatest(place, 100) else place end;
    if line.limited then
      room := least(room, (select count(*) from worker.type_slot s
                           where s.job_type = line.names[1] and s.job_id is null and not s.ctid = any (slots)));
      continue when room = 0;
    end if;
    if line.fair then
      turns := worker.take_turns(line.names[1], line.ranks[1], room, instant);
      hits := turns.rows;
      again := again or turns.more;
      fair := true;
    else
      hits := worker.pick_lines(line.names, line.ranks, room, instant);
    end if;
    if line.limited and cardinality(hits) > 0 then
      taken := worker.take_slots(line.names[1], cardinality(hits), slots);
      soon := soon or cardinality(taken) < cardinality(hits);  -- another claim has them in hand, and may give them back
      hits := hits[:cardinality(taken)];
      slots := slots || taken;
    end if;
    rows := rows || hits;
    if line.rated then
      rated := rated or cardinality(hits) > 0;
    else
      place := place - cardinality(hits);
    end if;
  end loop;
end
$$;
comment on function worker.pick(text[], integer, timestamptz) is
  'Locks due rows line by line, n at most beside those that are still to be rationed, and a free slot for each row of a limited type. again: a tenant of a fair type has more; soon: slots are in the hands of another claim';

-- Rights.
revoke all on function worker.gated_lines(text[]), worker.pick_lines(text[], smallint[], integer, timestamptz),
  worker.pick(text[], integer, timestamptz) from public;
