"""What every subject is given to look at."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from worker.check.release import NOISE, release
from worker.config import Config
from worker.connection import Connection
from worker.way import Way


@dataclass(frozen=True)
class Limits:
    """From where on something is worth a warning.

    Attributes:
        seconds: age of a transaction, and lateness of jobs and runs.
        dead: dead rows of a table.
        pages: of an index.
        wal: bytes that a replication slot keeps.
        notifications: share of the server's queue of them.
        skew: seconds between the clocks.
    """

    seconds: float = 300
    dead: int = 100_000
    pages: int = 1280
    wal: int = 2**30
    notifications: float = 0.1
    skew: float = 5


@dataclass(frozen=True)
class Patient:
    """A configuration and the database it names.

    Attributes:
        connection: to database.url.
        way: of the control connections.
        direct: of beat, listener and steps; the same as `way` unless database.direct_url is set.
    """

    config: Config
    connection: Connection
    way: Way
    direct: Way
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def known(self) -> str:
        """What the questions of sql/check compare the database with, as JSON."""
        config = self.config
        called = [step.sql for job in config.job.values() for step in (job.steps or {}).values()]
        called += [schedule.for_each for schedule in config.schedule.values() if schedule.for_each]
        facts: dict[str, Any] = {
            "release": release(),
            "noise": NOISE,
            "config": {
                "wake": config.worker.wake,
                "search_path": config.database.search_path,
                "types": [_digest(each) for each in config.declarations()],
                "schedules": [_digest(each) for each in config.timed()],
                "functions": sorted(set(called)),
            },
            "way": {"keeps": self.way.keeps},
            "limits": self.limits,
        }
        return orjson.dumps(facts).decode()


def _digest(declaration: dict[str, Any]) -> dict[str, str]:
    return {"name": declaration["name"], "digest": declaration["digest"]}
