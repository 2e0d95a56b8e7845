"""What evaluations say of a game: how far it turned against the user, and what their moves gave away. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Curve = Sequence[tuple[int, int]]  # (half-moves played, hundredths of a pawn from White's side)

LOST = -600  # whoever stands so badly has nothing left to learn from a turn to the worse
INACCURACY, MISTAKE, BLUNDER = 50, 100, 300


def swing(curve: Curve, colour: str) -> int:
    """The largest turn against the user between two looks: the cheap criterion for the deep look."""
    values = _own(curve, colour)
    return max((before - after for before, after in pairwise(values) if before > LOST and before > after), default=0)


def losses(curve: Curve, colour: str, white_begins: bool) -> dict[str, Any]:
    """What the user's moves gave away, on average and by size; needs every position."""
    values = _own(curve, colour)
    own = (colour == "white") == white_begins  # whether the first half-move was the user's
    lost = [max(before - after, 0) for n, (before, after) in enumerate(pairwise(values)) if (n % 2 == 0) == own]
    return {
        "average_loss": round(sum(lost) / len(lost), 1) if lost else 0.0,
        "inaccuracies": sum(INACCURACY <= each < MISTAKE for each in lost),
        "mistakes": sum(MISTAKE <= each < BLUNDER for each in lost),
        "blunders": sum(each >= BLUNDER for each in lost),
    }


def _own(curve: Curve, colour: str) -> list[int]:
    return [value if colour == "white" else -value for _, value in curve]
