-- For the demo only: one step of the stats graph raises the first time it is called, and works from then on.
--
-- The count is a sequence's, because a sequence is not rolled back together with the step that raised.

alter function club.update_aggregated_recent_performance(uuid) rename to recent_performance_in_truth;

create sequence club.stumbles;

create function club.update_aggregated_recent_performance(target_tenant_id uuid) returns integer
language plpgsql
as $$
begin
  if nextval('club.stumbles') = 1 then
    raise exception 'the demo lets this step stumble once';
  end if;
  return club.recent_performance_in_truth(target_tenant_id);
end
$$;
