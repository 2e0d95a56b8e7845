"""Claims and settles without a daemon, to see what one claim costs."""

import json
import time
from datetime import timedelta

import asyncpg

CLAIM = "select j.id, j.claim, j.job_type from worker.claim($1, $2, $3, $4) c, unnest(c.jobs) j"
SETTLE = """
    select count(*) from worker.settle($1, array(
      select (id, claim, 'completed', null, 0, null, true, false, true, null, null, null, null)::worker.verdict
      from unnest($2::bigint[], $3::bigint[]) as u (id, claim)))
"""


class Claimer:
    """One process without anybody behind it; it lives as long as the experiment does.

    Attributes:
        seconds: of each claim.
    """

    def __init__(self, connection: asyncpg.Connection, me: int, types: list[str]) -> None:
        self._connection = connection
        self._me = me
        self._types = types
        self._batch = 0
        self.seconds: list[float] = []

    @classmethod
    async def of(cls, dsn: str, *types: str, **settings: str) -> "Claimer":
        """Register over a connection of its own, with settings of its own; the types are declared."""
        connection = await asyncpg.connect(dsn, server_settings=settings)
        declared = json.dumps([{"name": name, "digest": name} for name in types])
        await connection.fetch("select * from worker.declare($1::jsonb)", declared)
        me = await connection.fetchval(
            "select worker.register('claimer', 0, '0', $1, 1, $2)", list(types), timedelta(hours=1)
        )
        await connection.fetchrow("select * from worker.register_backend($1, 'beat')", me)  # or it is found missing
        return cls(connection, me, list(types))

    async def claim(self, n: int) -> list[asyncpg.Record]:
        """One claim of up to n."""
        self._batch += 1
        began = time.perf_counter()
        rows = await self._connection.fetch(CLAIM, self._me, self._batch, self._types, n)
        self.seconds.append(time.perf_counter() - began)
        return rows

    async def settle(self, rows: list[asyncpg.Record]) -> None:
        """All of them completed."""
        ids, claims = [row["id"] for row in rows], [row["claim"] for row in rows]
        await self._connection.fetchval(SETTLE, self._me, ids, claims)

    async def execute(self, statement: str, *arguments: object) -> None:
        """Anything else, over its connection."""
        await self._connection.execute(statement, *arguments)

    async def blocks(self, n: int) -> int:
        """Blocks that a claim touches, found in memory or not."""
        self._batch += 1
        call = f"select * from worker.claim({self._me}, {self._batch}, $1, {n})"
        plan = await self._connection.fetchval(f"explain (analyze, buffers, format json) {call}", self._types)
        top = json.loads(plan)[0]["Plan"]
        return top["Shared Hit Blocks"] + top["Shared Read Blocks"]

    async def leave(self) -> None:
        """In good order, so that nobody finds it missing."""
        await self._connection.execute("select worker.leave($1)", self._me)
        await self._connection.close()
