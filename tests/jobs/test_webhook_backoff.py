"""A receiver that is away is asked by the backoff of one call, however many rows wait for it and whatever comes."""

import asyncio

from tests.heart import until
from tests.jobs.webhook import enqueued


async def test_newcomers_use_up_no_attempts_of_those_who_wait(connection, clubs, config, receiver, daemons):
    """At the shipped 1 s to 1 m: 300 rows that wait, and 200 that come in the ten seconds after."""
    text = config.path.read_text(encoding="utf-8")
    config.path.write_text(text.replace('first = "20ms", max = "50ms"', 'first = "1s", max = "1m"'), encoding="utf-8")
    tenant = clubs.tenants[0].id
    await receiver.stop()
    await asyncio.to_thread(daemons.start, config.path)
    await enqueued(connection, tenant, [[f"old-{number}"] for number in range(300)])
    await until(connection, "select min(attempt) >= 1 from worker.job_queue")
    for number in range(200):
        await enqueued(connection, tenant, [[f"new-{number}"]])
        await asyncio.sleep(0.05)
    used = await connection.fetchval("select max(attempt + snoozes) from worker.job_queue")
    assert used < 15  # in ten seconds of 1, 2, 4, 8 s at most, with full jitter
