"""Permits: drawn from one bucket by all, waited for in place for a while, and then the job is snoozed."""

import asyncio
import time

import pytest

from tests.heart import configured, daemon, enqueue, heart, job, row, until
from worker.context import Context
from worker.errors import NoPermit
from worker.outcome import Failed, Snoozed, judge
from worker.permits import Permits
from worker.retry import Retry

FOREVER = float("inf")


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as made:
        yield made


def permits(parts, limit=2, per=0.2):
    return Permits(parts.queue, {"site": (limit, per), "other": (1, 60.0)})


async def test_as_many_at_once_as_there_are_and_the_others_wait(parts):
    drawn, started = permits(parts), time.monotonic()
    await asyncio.gather(*(drawn.draw("site", FOREVER) for _ in range(6)))
    assert time.monotonic() - started >= 0.35


async def test_an_unknown_name_names_those_there_are(parts):
    context = Context([job()], {}, parts.queue, parts.database.steps, permits=permits(parts))
    with pytest.raises(ValueError, match=r"no \[rate\.sight\]; known are other, site"):
        await context.permit("sight")
    with pytest.raises(ValueError, match="known are none"):
        await Context([job()], {}, parts.queue, parts.database.steps).permit("site")


async def test_who_would_wait_beyond_its_time_has_no_place(parts):
    drawn = permits(parts)
    await drawn.draw("other", FOREVER)
    for _ in range(3):
        with pytest.raises(NoPermit) as told:
            await drawn.draw("other", time.monotonic() + 5)
        assert 50 < told.value.delay <= 60


async def test_the_rates_are_apart(parts):
    drawn = permits(parts, per=60.0)
    for _ in range(2):
        await drawn.draw("site", time.monotonic() + 5)
    await drawn.draw("other", time.monotonic() + 5)  # from a bucket of both it would come in a minute


def test_it_is_judged_as_a_snooze_that_keeps_steps():
    assert judge(job(), Retry(), NoPermit("site", 7.5)) == Snoozed(7.5, keep_steps=True)
    assert isinstance(judge(job(snoozes=1_000), Retry(), NoPermit("site", 7.5)), Failed)


CALL = """
[rate.site]
limit = 1
per = "1h"
[job.work]
python = "tests.sample_jobs:with_permit"
timeout = "{timeout}"
"""


async def test_an_attempt_that_gets_none_in_time_is_snoozed(dsn, tmp_path, connection):
    config = configured(tmp_path, dsn, CALL.format(timeout="5s"))
    async with daemon(config):
        first, second = [await enqueue(connection) for _ in range(2)]
        await until(connection, "select snoozes = 1 from worker.job_queue where snoozes > 0")
        rows = [await row(connection, each) for each in (first, second)]
        assert sorted(each["status"] for each in rows) == ["completed", "pending"]
        (waits,) = [each for each in rows if each["status"] == "pending"]
        assert (waits["attempt"], waits["errors"]) == (0, None)
