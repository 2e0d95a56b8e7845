"""What is counted, named once: the same from a daemon and, added up over all of them, from the exporter."""

from collections.abc import Mapping
from typing import NamedTuple

OTHER = "other"

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
WAIT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LATE = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)


class Counted(NamedTuple):
    """One name.

    Attributes:
        labels: their names.
        bounds: of a histogram's buckets, in seconds, ascending; one above all of them is added. None: a counter.
        idle: whether it counts on while nothing is done.
    """

    documentation: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None
    idle: bool = False


# By name, without the `_total` that ends a counter's.
COUNTED: Mapping[str, Counted] = {
    "worker_jobs_finished": Counted("Attempts settled.", ("job_type", "outcome")),
    "worker_job_duration_seconds": Counted("Length of an attempt.", ("job_type",), FAST),
    "worker_job_wait_seconds": Counted("From due to start.", ("job_type",), WAIT),
    "worker_step_duration_seconds": Counted("Length of a step.", ("job_type", "step"), FAST),
    "worker_schedule_lateness_seconds": Counted("From due to fired.", ("schedule",), LATE),
    "worker_claims": Counted("Claim calls by what came of them.", ("result",), idle=True),
    "worker_lost_claims": Counted("Verdicts refused: the job is somebody else's now."),
    "worker_rescues": Counted("Jobs taken over from dead processes."),
    "worker_outbound": Counted("Outgoing HTTP calls.", ("job_type", "result")),
    "worker_database_errors": Counted("Errors of SQL.", ("sqlstate_class",)),
    "worker_loop_lag_seconds": Counted("How late the event loop wakes.", (), LAG, idle=True),
    "worker_child_processes_died": Counted("Child processes that died."),
}
