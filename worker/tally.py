"""What this process counted, added to what all daemons did: for the exporter, where nobody reaches them, and the page.

Only what changed since the last time is sent. A push that was refused, or never left, keeps for the next. One whose
answer is lost counts as written: a counter may lose a little, and must never jump (docs/decisions/0023).
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import asyncpg
import structlog
from prometheus_client import Metric

from worker.database import is_transient
from worker.job_queue import JobQueue
from worker.metrics import Metrics
from worker.series import COUNTED, OTHER

TALLY_EVERY = 19.0  # seconds between pushes, jittered by a fifth: not sooner than 15
IDLE_SECONDS = 1_200.0  # while nothing is done but looking; and after a refusal
MOST = 5_000  # series in one push; the others go with the next

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]
Deltas = Mapping[Key, float]

_IDLE = tuple(f"{name}{end}" for name, each in COUNTED.items() if each.idle for end in ("_total", "_bucket", "_sum"))
_COLUMN = {"completed": "completed", "failed": "failed", "retried": "again", "snoozed": "again", "released": "again"}
_SPANS = {"worker_job_wait_seconds": "waits", "worker_job_duration_seconds": "runs"}

_log = structlog.get_logger()


class Tally:
    """Remembers what was told; one for the process, over all its lives, as its metrics are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._told: dict[Key, float] = {}
        self._next_idle = time.monotonic() + IDLE_SECONDS
        self._refused_until = float("-inf")
        self._lane = asyncio.Lock()  # the last push must not send what one under way has sent

    async def push(self, queue: JobQueue, last: bool = False) -> None:
        """Send what changed, in one statement; nothing where that would be claims of an idle daemon only.

        Args:
            last: whatever it is, for there is no next time.
        """
        async with self._lane:
            now = await self._read()
            changed = {key: value - self._told.get(key, 0.0) for key, value in now.items()}
            deltas = dict(islice(((key, delta) for key, delta in changed.items() if delta > 0), MOST))
            if not deltas or not (last or self._worth(deltas)):
                return
            await self._send(queue, deltas, {**self._told, **{key: now[key] for key in deltas}})
            self._next_idle = time.monotonic() + IDLE_SECONDS

    def _worth(self, deltas: Deltas) -> bool:
        now = time.monotonic()
        if now < self._refused_until:
            return False
        return now >= self._next_idle or any(name not in _IDLE for name, _ in deltas)

    async def _send(self, queue: JobQueue, deltas: Deltas, told: dict[Key, float]) -> None:
        before = self._told

        def sending() -> None:
            self._told = told

        try:
            await queue.add_counts(counts(deltas), attempts(deltas), sending)
        except asyncpg.PostgresError as error:
            if not (error.sqlstate or "").startswith("08"):  # the server itself says that nothing was written
                self._told = before
            if is_transient(error):
                raise
            # A schema that another release left, or rights that are missing: no reason to end a daemon.
            self._refused_until = time.monotonic() + IDLE_SECONDS
            _log.warning("duty.failed", duty="tally", error=type(error).__name__, sqlstate=error.sqlstate)

    async def _read(self) -> dict[Key, float]:
        """Every counter, and every bucket of every histogram by itself, as it stands."""
        found: dict[Key, float] = {}
        for collector in self._metrics.counted.values():
            for family in collector.collect():
                found.update(_flat(family))
            await asyncio.sleep(0)  # a hundred steps are milliseconds, and jobs run on this loop
        return found


def _flat(family: Metric) -> Iterator[tuple[Key, float]]:
    """The samples of one name, buckets not heaped up."""
    below = 0.0
    for sample in family.samples:
        value = sample.value
        if sample.name.endswith("_bucket"):
            value, below = value - below, value
            if sample.labels["le"] == "+Inf":
                below = 0.0
        elif not sample.name.endswith(("_total", "_sum")):
            continue
        yield (sample.name, tuple(sample.labels.items())), value


def counts(deltas: Deltas) -> list[dict[str, Any]]:
    """As worker.add_counts takes them."""
    return [{"series": name, "labels": dict(labels), "value": delta} for (name, labels), delta in deltas.items()]


def attempts(deltas: Deltas) -> list[dict[str, Any]]:
    """Attempts by job type: how they ended, and how many there were in each bucket of wait and run."""
    found: dict[str, dict[str, Any]] = {}
    for (name, pairs), delta in deltas.items():
        labels = dict(pairs)
        if name == "worker_jobs_finished_total":
            _of(found, labels)[_COLUMN.get(labels["outcome"], "other")] += round(delta)
        elif (column := _SPANS.get(name.removesuffix("_bucket"))) is not None:
            _of(found, labels)[column][_place(name, labels["le"])] += round(delta)
    return list(found.values())


def _of(found: dict[str, dict[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    job_type = labels.get("job_type", OTHER)
    if job_type not in found:
        found[job_type] = {"job_type": job_type, "completed": 0, "failed": 0, "again": 0, "other": 0}
        for name, column in _SPANS.items():
            found[job_type][column] = [0] * len(_bounds(name))
    return found[job_type]


def _bounds(name: str) -> tuple[float, ...]:
    return (*(COUNTED[name].bounds or ()), float("inf"))


def _place(bucket: str, le: str) -> int:
    return _bounds(bucket.removesuffix("_bucket")).index(float(le))
