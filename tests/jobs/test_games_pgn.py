"""PGN that nobody here wrote, from Debian's packages pgn-extract and pychess: openings, studies and puzzles."""

import os
import tempfile
from pathlib import Path

import chess.pgn
import pytest

from tests.jobs.games import ENGINE, needs_engine
from worker.jobs.games import pgn
from worker.jobs.games.analyst import analyse
from worker.jobs.games.terms import Search

PLACES = [Path(os.environ.get("WORKER_TEST_PGN", Path(tempfile.gettempdir(), "worker-pgn"))), Path("/")]
OPENINGS = "usr/share/pgn-extract/eco.pgn"
STUDIES = "usr/share/pychess/learn"


def there(name: str) -> Path:
    found = next((place / name for place in PLACES if (place / name).exists()), None)
    if found is None:
        pytest.skip(f"no {name} here; .ci/run unpacks it from Debian's packages")
    return found


def games(path: Path) -> list[str]:
    """The texts of a file's games, each as a platform would send it alone."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith("{"):
        text = text.partition("}")[2]
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("[") and not (found and found[-1][-1].startswith("[")):
            found.append([])
        if found:
            found[-1].append(line or " ")
    return ["\n".join(lines) for lines in found]


def test_two_thousand_openings_are_read() -> None:
    texts = games(there(OPENINGS))
    assert len(texts) > 1_500
    lines = [pgn.read(text) for text in texts]
    assert all(line.moves and line.start.fen() == chess.STARTING_FEN for line in lines)


def test_every_study_and_puzzle_is_read_or_refused_by_name() -> None:
    files = sorted(there(STUDIES).rglob("*.pgn"))
    assert len(files) > 20
    read = refused = 0
    for path in files:
        for text in games(path):
            try:
                line = pgn.read(text)
            except (pgn.Unfit, pgn.Unreadable):
                refused += 1
            else:
                board = line.start.copy()
                for move in line.moves:
                    assert move in board.legal_moves
                    board.push(move)
                read += 1
    assert read > 300
    assert refused < read


@needs_engine
def test_an_engine_looks_at_openings_and_mates() -> None:
    texts = [*games(there(OPENINGS))[-20:], *games(there(STUDIES) / "puzzles" / "mate_in_2.pgn")[:20]]
    asked = [(number, text, "white" if number % 2 else "black") for number, text in enumerate(texts)]
    found = analyse(asked, Search(ENGINE or "", 100, 4, 200, 300))
    assert {each["status"] for each in found} <= {"done", "skipped"}
    done = [each for each in found if each["status"] == "done"]
    assert len(done) > 20
    assert any(abs(value) == 1_000 for each in done for _, value in each["curve"]), "a puzzle in two moves shows a mate"
