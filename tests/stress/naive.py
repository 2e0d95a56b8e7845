"""A worker that is wrong on purpose: `python -m tests.stress.naive DSN FOLDER`.

It looks whether somebody runs a job of the same key, and then takes the row: two of them look at the same moment. The
checker that passes our daemon must catch this one.
"""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import asyncpg

from tests.stress.jobs import VIOLATIONS, held

TAKE = """
    update worker.job_queue set status = 'running', queued = false, claim = nextval('worker.claim_seq'),
        started_at = now(), attempt = 1
    where id = (
        select q.id from worker.job_queue q
        where q.queued and not exists (
            select from worker.job_queue r where r.concurrency_key = q.concurrency_key and r.status = 'running')
        order by random() limit 1 for update skip locked)
    returning id, claim, payload ->> 'key' as key
"""
DONE = "update worker.job_queue set status = 'completed', finished_at = now() where id = $1"


async def main(dsn: str, folder: Path) -> None:
    connection = await asyncpg.connect(dsn)
    while await connection.fetchval("select exists (select from worker.job_queue where queued)"):
        row = await connection.fetchrow(TAKE)
        if row is None:  # every key is busy
            await asyncio.sleep(0.001)
            continue
        run = SimpleNamespace(job=SimpleNamespace(id=row["id"], claim=row["claim"]))
        with held(folder / f"key-{row['key']}", folder / VIOLATIONS, run):
            await asyncio.sleep(0.01)
        await connection.execute(DONE, row["id"])
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
