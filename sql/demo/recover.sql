-- For the demo only: the step is as it was.

drop function club.update_aggregated_recent_performance(uuid);
drop sequence club.stumbles;
alter function club.recent_performance_in_truth(uuid) rename to update_aggregated_recent_performance;
