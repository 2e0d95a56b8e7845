"""What a sync keeps: the calls of sql/jobs/games, each a transaction that holds only while the claim does."""

from typing import Any

import orjson

from worker import Context, LostClaim

_OPEN = "select * from games.open_sync($1, $2)"
_COUNTS = "select * from games.counts($1)"
_PAGE = "select games.store_page($1, $2, $3, $4::text::jsonb, $5, $6)"
_FETCHED = "select games.end_fetch($1, $2, $3, $4)"
_BEGIN = "select games.begin_analysis($1, $2, $3)"
_PENDING = "select games.pending($1)"
_READ = "select * from games.read($1)"
_RECORD = "select games.record($1, $2, $3, $4::text::jsonb)"
_TROUBLE = "select games.trouble($1)"
_END = "select games.end_sync($1, $2, $3, $4, $5)"


class Store:
    """The rows of one sync, for one attempt of its job."""

    def __init__(self, context: Context, sync_id: str) -> None:
        self._context = context
        self._id = sync_id

    async def open(self) -> Any:
        """The row of games.sync, or None."""
        rows = await self._fetch(_OPEN, self._id, self._context.job.id)
        return rows[0] if rows else None

    async def counts(self) -> dict[str, int]:
        """How many were found, and are pending, done, skipped, failed."""
        return dict((await self._fetch(_COUNTS, self._id))[0])

    async def page(self, chunk: str, cursor: int, most: int) -> None:
        """Keep games, and how far the fetching came with them."""
        await self._write(_PAGE, chunk, cursor, most)

    async def fetched(self, capped: bool) -> None:
        """All games are there."""
        await self._write(_FETCHED, capped)

    async def begin(self) -> list[int]:
        """The games that are to be analysed."""
        await self._write(_BEGIN)
        return [row[0] for row in await self._fetch(_PENDING, self._id)]

    async def read(self, games: list[int]) -> list[tuple[int, str, str]]:
        """(id, PGN, the user's colour) of these games."""
        return [tuple(row) for row in await self._fetch(_READ, games)]

    async def record(self, findings: list[dict[str, Any]]) -> None:
        """Write down what came of a batch."""
        await self._write(_RECORD, orjson.dumps(findings).decode())

    async def trouble(self) -> list[str]:
        """The games that failed, with why."""
        return [row[0] for row in await self._fetch(_TROUBLE, self._id)]

    async def end(self, outcome: str, error: str | None) -> None:
        """How it ended."""
        await self._write(_END, outcome, error)

    async def _fetch(self, call: str, *arguments: Any) -> list[Any]:
        async with self._context.connection() as connection:
            return list(await connection.fetch(call, *arguments))

    async def _write(self, call: str, *arguments: Any) -> None:
        job = self._context.job
        async with self._context.connection() as connection, connection.transaction():
            if not await connection.fetchval(call, self._id, job.id, job.claim, *arguments):
                raise LostClaim(f"the claim of job {job.id} is lost")  # and nothing is written
