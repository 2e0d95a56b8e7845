"""One sync: fetching, then analysing. What is kept stays kept, so that the next attempt does the rest."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import orjson

from worker import ChildDied, Completed, Context, InvalidJob, Outcome, Permanent, Skipped, Snoozed
from worker.jobs.games import analyst, chess_com, lichess
from worker.jobs.games.asking import Asker, TooMany
from worker.jobs.games.game import Wanted
from worker.jobs.games.store import Store
from worker.jobs.games.terms import Search, Terms, read

PLATFORMS: dict[str, Any] = {"lichess": lichess, "chess.com": chess_com}
TOLD = 3  # games that failed, in the error of a sync


async def sync_games(context: Context) -> Outcome:
    """The job: fetches a user's games and analyses those that nobody has analysed.

    Returns:
        Completed with found, done, skipped, failed (found is the sum of the others) and, where some failed, `error`;
        Skipped where the sync is gone; Snoozed where the platform wants to be left alone.

    Raises:
        Permanent: there is no such player, there is no engine, or no game of those to analyse could be.
        InvalidJob: payload or settings are wrong.
    """
    terms = read(context.settings)
    store = Store(context, _sync_id(context.payload))
    sync = await store.open()
    if sync is None:
        return Skipped("no_op")
    if sync["fetched_at"] is None:
        try:
            await _fetch(context, terms, store, sync)
        except TooMany as told:
            return Snoozed(told.seconds)
    await _analyse(context, terms, store)
    return await _verdict(context, store)


async def _fetch(context: Context, terms: Terms, store: Store, sync: Any) -> None:
    await context.progress("fetching")
    platform = PLATFORMS[sync["platform"]]
    asker = Asker(context, terms, platform.RATE)
    capped = False
    async for page, cursor in platform.pages(asker, terms, _wanted(sync), sync["cursor"]):
        # The cursor goes with the last of a page's chunks: a crash before it costs that page, and no game twice.
        for chunk in page.chunks[:-1]:
            await store.page(chunk, 0, terms.most_games)
        await store.page(page.chunks[-1] if page.chunks else "[]", cursor, terms.most_games)
        if (await store.counts())["pending"] >= terms.most_games:
            capped = True
            break
    await store.fetched(capped)


async def _analyse(context: Context, terms: Terms, store: Store) -> None:
    games = await store.begin()
    if not games:
        return
    search = terms.search()
    if search is None:
        wanted = terms.engine or "Stockfish"
        raise Permanent(f"there is no UCI engine ({wanted}); install one, and `worker retry {context.job.id}` goes on")
    batches = iter([games[start : start + terms.batch] for start in range(0, len(games), terms.batch)])
    try:
        async with asyncio.TaskGroup() as together:
            for _ in range(terms.engines):
                together.create_task(_batches(context, search, store, batches))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


async def _batches(context: Context, search: Search, store: Store, batches: Iterator[list[int]]) -> None:
    for batch in batches:  # shared: who is done takes the next
        asked = await store.read(batch)
        await store.record(await _findings(context, search, asked))


async def _findings(context: Context, search: Search, asked: list[analyst.Asked]) -> list[dict[str, Any]]:
    try:
        return await context.to_process(analyst.analyse, asked, search)
    except ChildDied as error:
        if len(asked) > 1:  # one of them did it: each for itself, so that it takes no other along
            return [finding for each in asked for finding in await _findings(context, search, [each])]
        return [{"game_id": asked[0][0], "status": "failed", "note": str(error)}]


async def _verdict(context: Context, store: Store) -> Outcome:
    counts = await store.counts()
    told = {name: counts[name] for name in ("found", "done", "skipped", "failed")}
    failed, tried = counts["failed"], counts["done"] + counts["failed"]
    error = None
    if failed:
        some = "; ".join((await store.trouble())[:TOLD])
        error = f"{counts['done']}/{tried} games analysed. {failed} failed: {some}"[:500]
    if failed and failed == tried:
        await store.end("failed", error)
        raise Permanent(error or "")
    await store.end("completed", error)
    return Completed(told | ({"error": error} if error else {}))


def _wanted(sync: Any) -> Wanted:
    since, until = _milliseconds(sync["from_at"]), _milliseconds(sync["to_at"])
    return Wanted(sync["username"], since, until, orjson.loads(sync["filters"]))


def _milliseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1000)


def _sync_id(payload: Any) -> str:
    try:
        return str(UUID(payload["sync_id"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidJob("the payload names no sync_id; syncs are started by games.start()") from None
