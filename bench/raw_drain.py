"""The raw drain, a process of its own: `python -m bench.raw_drain DSN SECONDS_PER_JOB BATCH CONNECTIONS`.

Two batches in flight, each on its own connection: claim 500, do what the handlers would do, complete 500.
"""

import asyncio
import sys
import time

import asyncpg
import orjson


async def lane(dsn: str, seconds: float, batch: int) -> int:
    connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
    done = 0
    while rows := await connection.fetch("select * from raw_claim($1)", batch):
        for row in rows:
            orjson.loads(row["payload"])
        if seconds:
            await asyncio.sleep(seconds)  # all of the batch at once
        await connection.execute("select raw_complete($1)", [row["id"] for row in rows])
        done += len(rows)
    await connection.close()
    return done


async def main(dsn: str, seconds: float, batch: int, connections: int) -> None:
    began = time.perf_counter()
    done = await asyncio.gather(*(lane(dsn, seconds, batch) for _ in range(connections)))
    print(orjson.dumps({"jobs": sum(done), "seconds": time.perf_counter() - began}).decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
