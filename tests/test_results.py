"""Numbers of results as gauges: of the job that completed last, by whichever daemon."""

from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.heart import configured, enqueue, heart
from worker.metrics import Metrics
from worker.results import Results

WANTED = {"work": ("drift", "fixed"), "other": ()}


async def completed(
    connection: asyncpg.Connection, result: Any, seconds_ago: int = 0, status: str = "completed"
) -> None:
    await connection.execute(
        "update worker.job_queue set status = $3, trouble = $3 = 'failed', queued = false, held_key = null,"
        " started_at = now(), finished_at = worker.now() - make_interval(secs => $4), result = $2::jsonb where id = $1",
        await enqueue(connection), orjson.dumps(result).decode(), status, seconds_ago,
    )  # fmt: skip


def shown(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["name"]: sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "worker_job_result"
    }


async def sampled(dsn: str, metrics: Metrics) -> dict[str, float]:
    async with heart(dsn) as parts:
        await Results(parts.queue, metrics, WANTED).sample()
    return shown(metrics)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"work": ()})


async def test_the_last_that_completed_counts(dsn: str, connection: asyncpg.Connection, metrics: Metrics) -> None:
    await completed(connection, {"drift": 7, "fixed": 7}, seconds_ago=5)
    await completed(connection, {"drift": 60, "fixed": 59.5, "found": True}, seconds_ago=3)
    await completed(connection, {"drift": 1}, status="failed")
    await enqueue(connection)
    assert await sampled(dsn, metrics) == {"drift": 60.0, "fixed": 59.5}
    age = metrics.registry.get_sample_value("worker_job_result_age_seconds", {"job_type": "work"})
    assert age is not None
    assert age >= 3


@pytest.mark.parametrize("result", [None, 5, [1], "text", {"drift": "seven"}, {"other": 1}])
async def test_what_is_no_number_is_not_shown(
    dsn: str, connection: asyncpg.Connection, metrics: Metrics, result: Any
) -> None:
    await completed(connection, {"drift": 7}, seconds_ago=5)
    assert await sampled(dsn, metrics) == {"drift": 7.0}
    await completed(connection, result)
    assert await sampled(dsn, metrics) == {}


async def test_none_so_far(dsn: str, metrics: Metrics) -> None:
    assert await sampled(dsn, metrics) == {}


def test_only_types_that_ask_for_it_are_looked_at(tmp_path: Path, metrics: Metrics) -> None:
    config = configured(tmp_path, "postgresql://h/d", '[job.work]\npython = "m:f"\ngauges = ["drift"]')
    assert config.job["work"].gauges == ("drift",)
    queue: Any = None
    assert Results(queue, metrics, WANTED)
    assert not Results(queue, metrics, {"other": ()})
