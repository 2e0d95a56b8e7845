"""The sections of worker.toml. docs/configuration.md is generated from these models."""

import hashlib
import ipaddress
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from worker.config.fields import (
    Cron,
    DatabaseUrl,
    Digest,
    Duration,
    Environment,
    Function,
    HostName,
    Json,
    Listen,
    Many,
    Name,
    SearchPath,
    Secret,
    Section,
    Span,
    Zone,
    default,
)
from worker.config.job_type import JobType, RetryKeys
from worker.retry import Retry


class Database(Section):
    """Where the queue lives."""

    url: DatabaseUrl | None = default(None, description="Required, here or as DATABASE_URL, which wins.")
    direct_url: DatabaseUrl | None = default(
        None, description="For beat, listener and steps when `url` is a transaction pooler."
    )
    steps: int = default(
        8, ge=1, le=1000, description="Connections for SQL functions and handlers; no more jobs with steps run at once."
    )
    search_path: SearchPath = default("public", description="Where unqualified function names resolve, at start.")


class Keep(Section):
    """How long finished jobs stay."""

    completed: Duration = default("7d", description="Of completed jobs.")
    skipped: Duration = default("3d", description="Of skipped jobs.")
    failed: Duration = default("30d", description="Of failed jobs.")
    cancelled: Duration = default("7d", description="Of cancelled jobs.")


class Worker(Section):
    """The daemon."""

    enabled: bool = default(True, description="The master switch: off, jobs stay pending or go to their `fallback`.")
    concurrency: int = default(50, ge=1, le=10_000, description="Jobs running at once.")
    prefetch: int = default(50, ge=0, le=10_000, description="Jobs claimed beyond the free slots.")
    processes: int = default(
        2, ge=1, le=1000, description="Child processes for `context.to_process`, at most; started when needed."
    )
    poll: Span = default("5s", description="Between looks with a tested listener; without one every second.")
    lease: Span = default("30s", description="The long stop: after it a silent process is dead, behind a pooler too.")
    grace: Duration = default(
        "25s", description="What running jobs are given at a stop; under the platform's own limit."
    )
    beat: Span = default("500ms", description="Between beats of the process.")
    fence: Span = default("2s", description="Without a confirmed beat for so long, the process stops its own jobs.")
    missing: Span = default("3s", description="A process whose session is missing for so long is dead.")
    keep: Keep = default({}, description="How long finished jobs stay.")
    log_slow: Duration = default("1s", description="A job that takes this or more gets a line in the log.")
    wake: Literal["ring", "poll"] = default("ring", description="`poll`: no trigger, for PREPARE TRANSACTION and bulk.")


class HttpKey(Section):
    """Somebody who may use the HTTP side."""

    name: Name = Field(description="Shown in events and logs.")
    sha256: Digest = Field(description="sha256 of the key, in hexadecimal; the key itself is kept by its user.")
    scopes: Many[Literal["read", "enqueue", "operate"]] = Field(min_length=1, description="What the key allows.")


class Http(Section):
    """The listener: health, readiness, metrics, the API and the admin page. No section, no listener."""

    listen: Listen = default(
        "127.0.0.1:9464", description="Beyond loopback only with keys; PORT makes it 0.0.0.0:$PORT."
    )
    keys: Many[HttpKey] = default((), description="Who may use it.")
    api: bool = default(True, description="The JSON API and the admin page; off: health, readiness and metrics only.")
    hosts: Many[HostName] = default(
        (), description="Names that a browser reaches it by, beside loopback's; another Host is refused without a key."
    )
    session_secret: Secret | None = default(
        None, description="Signs logins, the same for all daemons behind one address; else drawn at each start."
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """True when only this machine can reach the listener."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Rate(Section):
    """A bucket that handlers draw from with `context.permit(NAME)`; shared by all daemons."""

    limit: int = Field(ge=1, le=1_000_000, description="Permits in `per`.")
    per: Span = Field(description="The span of time.")


class Schedule(Section):
    """Jobs by the clock ([schedules.md](schedules.md))."""

    cron: Cron = Field(description='Five fields such as "0 2 * * *", or @hourly, @daily, @weekly, @monthly, @yearly.')
    zone: Zone = default("UTC", description="The time zone of the fields.")
    job: Name = Field(description="The job type to enqueue.")
    source: Name | None = default(None, description="Of its jobs, for the type's `sources`; else the schedule's name.")
    payload: Json | None = default(None, repr=False, description="The payload.")
    for_each: Function | None = default(
        None,
        description="A set-returning function instead: a job for each row, its columns the payload.",
    )
    priority: int | None = default(None, ge=0, le=1000, description="Instead of the type's own.")
    missed: Literal["skip", "last", "all"] = default(
        "last", description="Of runs that nobody fired within a minute: make up for none, for the newest, or for all."
    )
    max_catch_up: int = default(10, ge=1, le=1000, description='Most runs at once with `missed = "all"`, the newest.')
    enabled: bool = default(True, description="Off: it does not fire.")

    def declaration(self, name: str) -> dict[str, Any]:
        """What SQL needs to know of it: one of the objects that `worker.declare_schedules` is given."""
        told = {"name": name, **dict(self)}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return {**told, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


class Config(Section):
    """All of worker.toml, checked, with DATABASE_URL and PORT of the environment over it."""

    environment: Environment = Field(description="Named in logs, metrics and every destructive prompt.")
    database: Database = default({}, description=Database.__doc__)
    worker: Worker = default({}, description=Worker.__doc__)
    http: Http | None = default(None, description=Http.__doc__)
    retry_keys: RetryKeys = default({}, alias="retry", description=RetryKeys.__doc__)
    job: dict[Name, JobType] = default({}, description=JobType.__doc__)
    rate: dict[Name, Rate] = default({}, description=Rate.__doc__)
    schedule: dict[Name, Schedule] = default({}, description=Schedule.__doc__)

    _path: Path = PrivateAttr(Path("worker.toml"))
    _warnings: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _bind_jobs(self) -> Self:
        for name, job in self.job.items():
            job.bind(name, self.retry)
        return self

    def bind(self, path: Path, warnings: tuple[str, ...]) -> None:
        """Tell the configuration where it came from; done once, by `load`."""
        self._path = path
        self._warnings = warnings

    @property
    def path(self) -> Path:
        """The file that was read."""
        return self._path

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and yet probably not meant; one line each, like faults."""
        return self._warnings

    @cached_property
    def retry(self) -> Retry:
        """`[retry]`, for job types that do not say otherwise."""
        return self.retry_keys.over(Retry())

    @property
    def claimed(self) -> list[str]:
        """The job types that a process claims: switched off as a whole, only those with a fallback."""
        return [name for name, job in self.job.items() if self.worker.enabled or job.fallback]

    def declarations(self) -> list[dict[str, Any]]:
        """What `worker.declare` is told, type by type."""
        return [job.declaration() for job in self.job.values()]

    @property
    def scheduled(self) -> list[str]:
        """The schedules that a process fires."""
        return [name for name, schedule in self.schedule.items() if schedule.enabled]

    def timed(self) -> list[dict[str, Any]]:
        """What `worker.declare_schedules` is told, schedule by schedule."""
        return [schedule.declaration(name) for name, schedule in self.schedule.items()]
