"""Games looked at by a UCI engine: first a cheap look at some positions, and a deep one at all where that pays.

Runs in a child process, for a batch of games at a time: one engine is started for all of them. What comes out depends
on the game, the terms and the engine's build alone, for searches end by nodes and each game begins with empty tables.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import chess
from chess import engine as uci

from worker.jobs.games import pgn, selection
from worker.jobs.games.terms import Search

MATE = 1_000  # hundredths of a pawn; no evaluation counts as more
STARTS = 2  # of an engine for a game that makes it die
HASH_MB = 16
QUIT_SECONDS = 2.0
LOOK_SECONDS = 0.005  # between looks for an engine that was killed

Asked = tuple[int, str, str]  # id, PGN, the user's colour
_TROUBLE = (uci.EngineError, uci.EngineTerminatedError, TimeoutError, OSError)


class EngineBroken(Exception):
    """The engine does not even start, so no game is to blame: the batch has failed, and none of its games."""


def analyse(games: Sequence[Asked], search: Search) -> list[dict[str, Any]]:
    """A finding for each game, as `games.record` takes it: done, skipped with why, or failed with why; raises
    EngineBroken."""
    return asyncio.run(_analyse(games, search))


async def _analyse(games: Sequence[Asked], search: Search) -> list[dict[str, Any]]:
    desk = Desk(search)
    try:
        return [{"game_id": number} | await _one(desk, text, colour) for number, text, colour in games]
    finally:
        await desk.leave()


async def _one(desk: "Desk", text: str, colour: str) -> dict[str, Any]:
    try:
        game = pgn.read(text)
    except pgn.Unfit as error:
        return {"status": "skipped", "note": str(error)}
    except pgn.Unreadable as error:
        return {"status": "failed", "note": str(error)}
    said = ""
    for _ in range(STARTS):
        try:
            return await _looked_at(desk, game, colour)
        except _TROUBLE as error:
            said = _said(error)
            await desk.leave(politely=False)  # the next game gets an engine that this one has not touched
    return {"status": "failed", "note": f"the engine failed: {said}"[:200]}


async def _looked_at(desk: "Desk", game: pgn.Line, colour: str) -> dict[str, Any]:
    search = desk.search
    curve = await desk.look(game, _some(len(game.moves), search.quick_every), search.quick_nodes)
    swing = selection.swing(curve, colour)
    found: dict[str, Any] = {"status": "done", "look": "quick", "moves": len(game.moves), "swing": swing}
    if swing >= search.swing:
        curve = await desk.look(game, range(len(game.moves) + 1), search.deep_nodes)
        found |= {"look": "deep"} | selection.losses(curve, colour, game.white_begins)
    return found | {"curve": curve, "engine": desk.name, "nodes": desk.spent()}


def _some(moves: int, every: int) -> list[int]:
    """Half-moves at which the quick look stops: every so many, and the last."""
    return sorted({*range(0, moves + 1, every), moves})


class Desk:
    """An engine, started when it is first needed and again when it died."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.name = ""
        self._engine: uci.UciProtocol | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._nodes = 0

    async def look(self, game: pgn.Line, stops: Sequence[int], nodes: int) -> list[tuple[int, int]]:
        """The evaluations at these half-moves, in hundredths of a pawn from White's side."""
        engine = await self._running()
        board, told = game.start.copy(), object()  # a new object is a new game to the engine: it empties its tables
        curve, wanted = [], set(stops)
        for number in range(len(game.moves) + 1):
            if number in wanted:
                curve.append((number, await self._value(engine, board, nodes, told)))
            if number < len(game.moves):
                board.push(game.moves[number])
        return curve

    def spent(self) -> int:
        """Nodes searched since the last question."""
        spent, self._nodes = self._nodes, 0
        return spent

    async def leave(self, *, politely: bool = True) -> None:
        """End the engine, if there is one: politely where that is asked for, then not. It is gone afterwards."""
        engine, transport = self._engine, self._transport
        self._engine = self._transport = None
        self._nodes = 0
        if engine is None or transport is None:
            return
        if politely and engine.initialized:
            with suppress(*_TROUBLE):
                async with asyncio.timeout(QUIT_SECONDS):
                    await engine.quit()
        with suppress(ProcessLookupError):
            transport.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIT_SECONDS):
                # Not engine.returncode: that never comes where a search was given up.
                while transport.get_returncode() is None:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)
        transport.close()

    async def _value(self, engine: uci.UciProtocol, board: chess.Board, nodes: int, told: object) -> int:
        if board.is_game_over():
            return _final(board)
        async with asyncio.timeout(self.search.seconds):
            info = await engine.analyse(board, uci.Limit(nodes=nodes), game=told, info=uci.INFO_BASIC | uci.INFO_SCORE)
        if "score" not in info:
            raise uci.EngineError("it moved without a score")
        self._nodes += info.get("nodes", 0)
        value = info["score"].white().score(mate_score=MATE)
        return max(-MATE, min(MATE, value))

    async def _running(self) -> uci.UciProtocol:
        if self._engine is None:
            try:
                async with asyncio.timeout(self.search.seconds):
                    self._engine = await self._started()
            except _TROUBLE as error:
                raise EngineBroken(f"{self.search.engine} does not start: {_said(error)}") from None
        return self._engine

    async def _started(self) -> uci.UciProtocol:
        self._transport, engine = await uci.UciProtocol.popen(self.search.engine)
        self._engine = engine  # before it says a word: whatever comes, it is ended
        await engine.initialize()
        options = {"Threads": 1, "Hash": HASH_MB}
        await engine.configure({name: value for name, value in options.items() if name in engine.options})
        self.name = engine.id.get("name", "unnamed")[:100]
        return engine


def _final(board: chess.Board) -> int:
    """A position that ended the game: nothing to search."""
    if not board.is_checkmate():
        return 0
    return -MATE if board.turn == chess.WHITE else MATE


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
