"""A model of the queue in Python: what each row must be, and the promises that no single call makes."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.sql.conftest import NOON

FINAL = {"completed", "skipped", "failed", "cancelled"}
TYPES = {
    "plain": {},
    "waiting": {"unique_key": "{u}"},
    "active": {"unique_key": "{u}", "unique_while": "active", "audit": True},
    "line": {"concurrency_key": "{c}", "audit": True},
    "both": {"unique_key": "{u}", "concurrency_key": "{c}", "expires": 30, "audit": True},
    "theirs": {"unique_key": "{u}", "producers": ["app", "tenant"], "audit": True},
}


@dataclass
class Model:
    """A job as it must be; times are seconds after noon."""

    id: int
    type: str
    unique: str | None
    line: str | None
    priority: int
    due: float
    expires: float | None = None
    tenant: str | None = None
    status: str = "pending"
    parked: bool = False
    started: bool = False
    attempt: int = 0
    rescues: int = 0
    snoozes: int = 0
    claim: int | None = None
    process: int | None = None
    batch: int = 0
    asked: bool = False
    rescued: bool = False
    old_claims: list[int] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        return self.status == "pending" and not self.started

    @property
    def holds(self) -> bool:
        return self.unique is not None and (self.waiting if self.type != "active" else self.status not in FINAL)

    @property
    def place(self) -> tuple[int, float, int]:
        return self.priority, self.due, self.id

    def facts(self) -> tuple[object, ...]:
        pending = self.status == "pending"
        due = NOON + timedelta(seconds=self.due)
        return (
            self.id, self.status, pending and not self.parked, pending and self.parked,
            self.status in ("failed", "cancelled"), self.priority, due, self.attempt, self.claim, self.started,
            self.rescues, self.snoozes, self.holds, self.status in FINAL, self.asked, self.process, self.tenant,
        )  # fmt: skip


class Places:
    """What a claim was told as `after`: of each line the row that the look begins behind."""

    def __init__(self, told: str | None) -> None:
        self.told = told
        self._ends = {
            line: ((datetime.fromisoformat(at) - NOON).total_seconds(), id)
            for line, (at, id) in json.loads(told or "{}").items()
        }

    def ahead(self, job: Model) -> bool:
        """Whether a look that begins there comes to it."""
        end = self._ends.get(f"{job.type} {job.priority}")
        return end is None or (job.due, job.id) > end


FACTS = """
    select id, status, queued, parked, trouble, priority, scheduled_at, attempt, claim, started_at is not null, rescues,
      snoozes, held_key is not null, finished_at is not null, cancel_requested_at is not null, claimed_by, tenant_id
    from worker.job_queue order by id
"""
PROMISES = {
    "at most one job waits for a unique key": """
        select job_type, unique_key, tenant_id from worker.job_queue
        where unique_key is not null and status = 'pending' and started_at is null
        group by 1, 2, 3 having count(*) > 1""",
    "at most one job is active under a unique key held while active": """
        select job_type, unique_key, tenant_id from worker.job_queue
        where unique_while = 'active' and unique_key is not null and finished_at is null
        group by 1, 2, 3 having count(*) > 1""",
    "at most one job of a concurrency key runs": """
        select concurrency_key from worker.job_queue
        where concurrency_key is not null and status = 'running' group by 1 having count(*) > 1""",
    "the slots are the running jobs with a key, exactly": """
        select coalesce(s.key, j.concurrency_key), s.job_id, j.id from worker.key_slot s
        full join (select * from worker.job_queue where status = 'running' and concurrency_key is not null) j
          on j.concurrency_key = s.key and j.id = s.job_id
        where s.key is null or j.id is null""",
    "a claim is of one job": """
        select claim from worker.job_queue where claim is not null group by 1 having count(*) > 1""",
    "a running job belongs to a process that lives": """
        select j.id from worker.job_queue j left join worker.process p on p.id = j.claimed_by and p.dead_at is null
        where j.status = 'running' and p.id is null""",
    "each transition of an audited job begins where the last one ended": """
        select h.* from (select *, lag(to_status) over (partition by job_id order by id) as before
                         from worker.history where to_status is not null) h
        join worker.job_type t on t.name = h.job_type and t.audit
        where h.from_status is distinct from h.before""",
    "the last transition of an audited job is its status": """
        select j.id, j.status from worker.job_queue j join worker.job_type t on t.name = j.job_type and t.audit
        where j.status is distinct from (select h.to_status from worker.history h
          where h.job_id = j.id and h.to_status is not null order by h.id desc limit 1)""",
}
STRANDED = """
    select p.id from worker.job_queue p
    where p.parked and not exists (select from worker.key_slot s where s.key = p.concurrency_key)
      and not exists (select from worker.job_queue q where q.queued and q.concurrency_key = p.concurrency_key)
"""
TABLES = ("job_queue", "job_type", "kept", "job_event", "process", "key_slot", "clock")
CLEAN = f"truncate {', '.join(f'worker.{table}' for table in TABLES)} restart identity cascade"
