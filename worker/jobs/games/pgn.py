"""A game's text read: where it began and its moves. Pure; runs in child processes."""

import io
from dataclasses import dataclass

import chess
import chess.pgn

MOST_MOVES = 1_200  # of both sides; the longest possible game that anybody played has half as many


class Unfit(Exception):
    """A game that there is nothing to analyse in, or that no ordinary engine plays."""


class Unreadable(Exception):
    """No game, or one with an impossible move."""


@dataclass(frozen=True, slots=True)
class Line:
    """The moves that were played, from their first position."""

    start: chess.Board
    moves: tuple[chess.Move, ...]

    @property
    def white_begins(self) -> bool:
        return self.start.turn == chess.WHITE


class _Builder(chess.pgn.GameBuilder[chess.pgn.Game]):
    """Keeps faults for us, and to itself: the library's own writes them to the log."""

    def handle_error(self, error: Exception) -> None:
        self.game.errors.append(error)


def read(text: str) -> Line:
    """The first game of a PGN text; raises Unfit, Unreadable."""
    try:
        game = chess.pgn.read_game(io.StringIO(text), Visitor=_Builder)
    except Exception as error:  # texts of others were found that end the library's reader with an IndexError
        raise Unreadable(f"unreadable PGN: {_first_line(error)}") from None
    if game is None:
        raise Unreadable("unreadable PGN: no game in it")
    if game.errors:
        raise Unreadable(f"unreadable PGN: {_first_line(game.errors[0])}")
    start = game.board()
    if type(start) is not chess.Board:
        raise Unfit(f"variant {type(start).uci_variant}")
    moves = tuple(game.mainline_moves())
    if not moves:
        raise Unfit("no moves")
    if len(moves) > MOST_MOVES:
        raise Unfit(f"more than {MOST_MOVES} moves")
    if not start.is_valid():
        raise Unreadable("unreadable PGN: the first position cannot be")
    return Line(start, moves)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:150]
