"""The analyst: PGN read, games chosen for the deep look, and an engine that decides by nodes alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import chess
import pytest

from tests.jobs.games import ENGINE, needs_engine, some
from worker.jobs.games import pgn, selection
from worker.jobs.games.analyst import MATE, EngineBroken, analyse
from worker.jobs.games.terms import Search

FOOLS_MATE = "1. f3 e5 2. g4 Qh4# 0-1"
SEARCH = Search(ENGINE or "", quick_nodes=100, quick_every=4, deep_nodes=400, swing=300)


def test_a_pgn_is_read_with_comments_and_variations() -> None:
    line = pgn.read('[White "Ann"]\n\n1. e4 {best} (1. d4 d5) e5 $1 2. Nf3 *\n\n1. c4 *')
    assert [move.uci() for move in line.moves] == ["e2e4", "e7e5", "g1f3"]
    assert (line.start.fen(), line.white_begins) == (chess.STARTING_FEN, True)


def test_a_game_may_begin_elsewhere() -> None:
    line = pgn.read('[SetUp "1"]\n[FEN "8/8/8/8/8/k7/7q/K7 b - - 0 1"]\n\n1... Qa2# 0-1')
    assert (line.white_begins, len(line.moves)) == (False, 1)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", pgn.Unreadable, "no game"),
        ("1. e4 e5 2. Ke8 *", pgn.Unreadable, "illegal san"),
        ("*", pgn.Unfit, "no moves"),
        ('[Variant "Crazyhouse"]\n\n1. e4 *', pgn.Unfit, "variant crazyhouse"),
        ("1. e4 (1. d4) d5) e5 2. Nf3 *", pgn.Unreadable, "unreadable"),
        ('[Variant "Nothing I know"]\n\n1. e4 *', pgn.Unreadable, "unreadable"),
        ('[FEN "nonsense"]\n\n1. e4 *', pgn.Unreadable, "unreadable"),
        ('[FEN "8/8/8/8/8/8/8/8 w - - 0 1"]\n\n*', pgn.Unfit, "no moves"),
        ("{" * 5000 + "(" * 5000, pgn.Unfit, "no moves"),
        ("1. Nf3 Nf6 2. Ng1 Ng8 " * 400, pgn.Unfit, "more than"),
    ],
)
def test_what_cannot_be_analysed_says_why(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pgn.read(text)


def test_reading_writes_nothing_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pgn.Unreadable):
        pgn.read("1. e4 e5 2. Ke8 *")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("values", "colour", "swing"),
    [
        ([0, 50, -300], "white", 350), ([0, 50, -300], "black", 50), ([0, 400, 400, 0], "white", 400),
        ([0], "white", 0), ([], "black", 0), ([-700, -1000], "white", 0), ([-500, -1000], "white", 500),
        ([MATE, -MATE], "white", 2 * MATE),
    ],
)  # fmt: skip
def test_the_swing_is_the_largest_turn_against_the_user(values: list[int], colour: str, swing: int) -> None:
    assert selection.swing(list(enumerate(values)), colour) == swing


def test_losses_are_of_the_user_s_own_moves() -> None:
    curve = list(enumerate([0, -60, 0, -150, -100, -500]))
    own = selection.losses(curve, "white", True)
    assert own == {"average_loss": 203.3, "inaccuracies": 1, "mistakes": 1, "blunders": 1}
    assert selection.losses(curve, "black", True) == {
        "average_loss": 55.0,
        "inaccuracies": 2,
        "mistakes": 0,
        "blunders": 0,
    }
    assert selection.losses(curve, "white", False)["average_loss"] == 0
    assert selection.losses([(0, 0)], "white", True)["average_loss"] == 0


@needs_engine
def test_a_batch_by_a_real_engine_and_the_same_again() -> None:
    games = [(n, game.pgn, "white" if game.white == "Ann" else "black") for n, game in enumerate(some(8))]
    asked = [*games, (90, "nonsense", "white"), (91, "1. e4 Ke4 *", "white"), (92, FOOLS_MATE, "white")]
    found = analyse(asked, SEARCH)
    assert [each["game_id"] for each in found] == [number for number, *_ in asked]
    assert [each["status"] for each in found[8:]] == ["skipped", "failed", "done"]
    assert analyse(asked, SEARCH) == found
    assert analyse(asked[:3], SEARCH) + analyse(asked[3:], SEARCH) == found, "what a game gets depends on its batch"
    for each in found[:8]:
        deep = each["swing"] >= SEARCH.swing
        assert each["look"] == ("deep" if deep else "quick")
        assert len(each["curve"]) == (
            each["moves"] + 1 if deep else len({*range(0, each["moves"] + 1, 4), each["moves"]})
        )
        assert ("blunders" in each) == deep
        assert all(-MATE <= value <= MATE for _, value in each["curve"])


@needs_engine
def test_a_fool_s_mate_is_a_blunder() -> None:
    (found,) = analyse([(1, FOOLS_MATE, "white")], SEARCH)
    assert (found["look"], found["moves"], found["curve"][-1]) == ("deep", 4, (4, -MATE))
    assert found["blunders"] >= 1
    assert re.match("Stockfish", found["engine"])
    assert found["nodes"] > 0


# The first one dies at its first search; whoever is started after it is the real one.
FRAGILE = """#!/bin/sh
[ -e {mark} ] && exec {engine}
touch {mark}
while read -r line; do case "$line" in uci) echo uciok ;; isready) echo readyok ;; go*) exit 1 ;; esac; done
"""


@needs_engine
def test_an_engine_that_dies_is_started_again(tmp_path: Path) -> None:
    engine = script(tmp_path, FRAGILE.format(mark=tmp_path / "mark", engine=ENGINE))
    search = Search(engine, 100, 4, 400, 300)
    found = analyse([(1, FOOLS_MATE, "white"), (2, "1. e4 e5 *", "black")], search)
    assert [each["status"] for each in found] == ["done", "done"]
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("body", ["exit 3", "exec cat > /dev/null", "echo nonsense; exec sleep 60"], ids=str)
def test_what_is_no_engine_fails_the_batch_and_leaves_nobody_behind(tmp_path: Path, body: str) -> None:
    engine = script(tmp_path, f"#!/bin/sh\n{body}\n")
    with pytest.raises(EngineBroken, match="does not start"):
        analyse([(1, FOOLS_MATE, "white")], Search(engine, seconds=0.5))
    assert analyse([(2, "*", "white")], Search(engine)) == [{"game_id": 2, "status": "skipped", "note": "no moves"}]
    assert children(engine) == []


def test_an_engine_that_is_not_there_fails_the_batch() -> None:
    with pytest.raises(EngineBroken, match="/nowhere/engine does not start"):
        analyse([(1, FOOLS_MATE, "white")], Search("/nowhere/engine"))


HANGING = """#!/bin/sh
while read -r line; do case "$line" in uci) echo uciok ;; isready) echo readyok ;; esac; done
"""


def test_an_engine_that_hangs_fails_the_game(tmp_path: Path) -> None:
    engine = script(tmp_path, HANGING)
    (found,) = analyse([(1, FOOLS_MATE, "white")], Search(engine, seconds=1))
    assert (found["status"], found["note"]) == ("failed", "the engine failed: TimeoutError")
    assert children(engine) == []


MUTE = """#!/bin/sh
while read -r line; do
  case "$line" in uci) echo uciok ;; isready) echo readyok ;; go*) echo "bestmove (none)" ;; quit) exit ;; esac
done
"""


def test_an_engine_that_says_no_score_fails_the_game(tmp_path: Path) -> None:
    games = [(1, FOOLS_MATE, "white"), (2, "*", "white")]
    found = analyse(games, Search(script(tmp_path, MUTE)))
    assert [each["status"] for each in found] == ["failed", "skipped"]
    assert found[0]["note"] == "the engine failed: it moved without a score"


def script(folder: Path, text: str) -> str:
    path = folder / "engine"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def children(command: str) -> list[str]:
    """Processes of ours that still run this command."""
    if sys.platform != "linux":
        return []
    out = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False)
    return [said for said in out.stdout.splitlines() if command in said and "<defunct>" not in said]
