"""The duty that prunes: a round goes over all pages, by the ages of worker.keep."""

from pathlib import Path

import asyncpg

from tests.heart import configured, enqueue, heart
from worker.prune import prune

KEEP = 'keep = { completed = "7d", failed = "30d" }'


async def test_a_round_goes_over_all_pages(dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
    await connection.execute(
        "insert into worker.job_queue (job_type, payload) select 'work', '{}' from generate_series(1, 12000)"
    )
    await connection.execute(
        "update worker.job_queue set queued = false, trouble = id % 2 = 0, finished_at = now() - interval '8 days',"
        " created_at = now() - interval '9 days', status = case id % 2 when 0 then 'failed' else 'completed' end"
    )
    pending = await enqueue(connection)
    config = configured(tmp_path, dsn, "", worker=KEEP)
    async with heart(dsn) as parts:
        assert await prune(parts.queue, config.worker.keep) == 6000
        assert await prune(parts.queue, config.worker.keep) == 0
    left = await connection.fetch("select status, count(*), max(id) from worker.job_queue group by 1 order by 1")
    assert left == [("failed", 6000, 12000), ("pending", 1, pending)]
