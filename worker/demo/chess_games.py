"""Games of chess for the demo and for tests, played by dice and, where there is one, by an engine: nobody's."""

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import chess
import chess.engine
import chess.pgn

from worker.demo.platforms import Played

NODES = 200  # of the engine, for a line of moves
LINE = 6  # half-moves that are played of it
KINDS = ("bullet", "blitz", "rapid")
_WORTH = {chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9, chess.KING: 0}


def make_games(
    seed: int,
    count: int,
    player: str,
    newest: int,
    *,
    plies: int = 28,
    apart: int = 3_600_000,
    engine: str | None = None,
) -> list[Played]:
    """Games of a player, one every `apart` milliseconds up to `newest`; without an engine the same seed gives the same.

    Args:
        engine: the path of a UCI engine that plays most moves; without one all are drawn.
    """
    chance = random.Random(seed)
    with _playing(engine) as playing:
        return [_game(chance, playing, player, newest - n * apart, plies) for n in range(count)]


@contextmanager
def _playing(path: str | None) -> Iterator[chess.engine.SimpleEngine | None]:
    if path is None:
        yield None
        return
    with chess.engine.SimpleEngine.popen_uci(path) as engine:
        yield engine


def _game(chance: random.Random, engine: chess.engine.SimpleEngine | None, player: str, at: int, plies: int) -> Played:
    opponent = f"opponent{chance.randrange(50)}"
    white, black = (player, opponent) if chance.random() < 0.5 else (opponent, player)
    board = chess.Board()
    slips = chance.choice((0.0, 0.0, 0.0, 0.0, 0.05))  # most games are quiet, some are not
    length = chance.randrange(plies // 2, plies)
    while len(board.move_stack) < length and not board.is_game_over():
        drawn = engine is None or len(board.move_stack) < 2
        for move in [_drawn(chance, board)] if drawn or engine is None else _line(engine, board):
            if chance.random() < slips:
                board.push(_drawn(chance, board))
                break
            board.push(move)
    result = board.result() if board.is_game_over() else _verdict(board)
    kind = chance.choice(KINDS)
    return Played(white, black, at, result, _pgn(board, white, black, result, at), kind)


def _drawn(chance: random.Random, board: chess.Board) -> chess.Move:
    return chance.choice(list(board.legal_moves))


def _line(engine: chess.engine.SimpleEngine, board: chess.Board) -> list[chess.Move]:
    """How it would go on: asking for each move would be slow where the machine is busy."""
    told = engine.play(board, chess.engine.Limit(nodes=NODES), info=chess.engine.INFO_PV)
    assert told.move is not None
    return told.info.get("pv", [told.move])[:LINE]


def _verdict(board: chess.Board) -> str:
    """Who stands worse by a piece resigns."""
    balance = sum(
        worth * (len(board.pieces(piece, chess.WHITE)) - len(board.pieces(piece, chess.BLACK)))
        for piece, worth in _WORTH.items()
    )
    return "1/2-1/2" if abs(balance) < 3 else "1-0" if balance > 0 else "0-1"


def _pgn(board: chess.Board, white: str, black: str, result: str, at: int) -> str:
    game = chess.pgn.Game.from_board(board)
    game.headers.update(
        Event="Casual game",
        Date=datetime.fromtimestamp(at / 1000, UTC).strftime("%Y.%m.%d"),
        White=white,
        Black=black,
        Result=result,
    )
    out = io.StringIO()
    print(game, file=out, end="\n\n")
    return out.getvalue()
